// experts.h5 tells how often each expert was chosen, over the whole run, as readers see it. It is an index
// over the segments beside it (history_index.h). Files of earlier versions, which have all rows in
// themselves, are read too. A missing or damaged file is a Fault::data. ExpertHistoryWriter writes it
// (expert_history_writer.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "framework/store/expert_loads.h"

namespace conclave {

struct OpenHistory;

/// The content of experts.h5; each array is row-major.
struct ExpertHistory {
  std::int64_t layers = 0, experts = 0, expert_ranks = 1;
  std::vector<std::string> domains;  // of the evaluations: those of the run's last start, then earlier ones
  std::vector<std::int64_t> step;    // [steps]
  std::vector<std::int64_t> counts;  // [steps, layers, experts]; tokens sent to each expert
  std::vector<double> probability;   // [steps, layers, experts]; mean router probability
  /// [steps, layers, expert_ranks]; tokens sent to the experts of each rank of the layout that the run had
  /// last
  std::vector<std::int64_t> load_per_expert_rank;
  std::vector<double> layer_balance_loss;     // [steps, layers]; unweighted
  std::vector<double> layer_load_violation;   // [steps, layers]; most loaded expert / mean load - 1
  std::vector<std::int64_t> evaluation_step;  // [evaluations]
  /// [evaluations, domains, layers, experts]; -1 where the run did not have the domain at that time
  std::vector<std::int64_t> evaluation_counts;
  /// [evaluations, domains, layers]; means over the domain's tokens: the sum of the chosen experts'
  /// probabilities, and the entropy of all of them in nats. NaN where there was no such domain; NaN, or
  /// nothing at all, where an earlier version wrote the file.
  std::vector<double> evaluation_score_sum, evaluation_entropy;
};

ExpertHistory read_expert_history(const std::filesystem::path& path);

/// The same file read in parts, for runs whose counts do not fit into memory. It may be read while the run
/// goes on, and shows what was there when it was opened.
class ExpertHistoryReader {
 public:
  explicit ExpertHistoryReader(const std::filesystem::path& path);
  ~ExpertHistoryReader();

  /// All but counts, probability and the other values of single steps; `step` itself is there.
  const ExpertHistory& overview() const { return overview_; }
  /// The counts of some steps: [rows, layers, experts].
  std::vector<std::int64_t> counts(std::int64_t first_row, std::int64_t rows) const;

 private:
  std::unique_ptr<OpenHistory> open_;
  ExpertHistory overview_;
};

}  // namespace conclave
