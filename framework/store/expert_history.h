// experts.h5: who was chosen how often, over the whole run. Rows wait in memory and are added to a copy of
// the file that then replaces it: a process killed while HDF5 has a file open for writing would cost the
// whole file. flush() belongs before each checkpoint; what a killed run loses beyond that is computed again
// on resuming.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace conclave {

class Hdf5File;

/// What experts.h5 holds; each array is row-major.
struct ExpertHistory {
  std::int64_t layers = 0, experts = 0, expert_ranks = 1;
  std::vector<std::string> domains;  // of the evaluations
  std::vector<std::int64_t> step;    // [steps]
  std::vector<std::int64_t> counts;  // [steps, layers, experts]; tokens sent to each expert
  std::vector<double> probability;   // [steps, layers, experts]; mean router probability
  /// [steps, layers, expert_ranks]; tokens sent to the experts of each rank of the layout that the run had
  /// last
  std::vector<std::int64_t> load_per_expert_rank;
  std::vector<double> layer_balance_loss;       // [steps, layers]; unweighted
  std::vector<double> layer_load_violation;     // [steps, layers]; most loaded expert / mean load - 1
  std::vector<std::int64_t> evaluation_step;    // [evaluations]
  std::vector<std::int64_t> evaluation_counts;  // [evaluations, domains, layers, experts]
  /// [evaluations, domains, layers]; means over the domain's tokens: the sum of the chosen experts'
  /// probabilities, and the entropy of all of them in nats. NaN, or nothing at all, where an earlier version
  /// wrote the file.
  std::vector<double> evaluation_score_sum, evaluation_entropy;
};

ExpertHistory read_expert_history(const std::filesystem::path& path);

/// The same file read in parts, for runs whose counts do not fit into memory. What is damaged is a
/// Fault::data.
class ExpertHistoryReader {
 public:
  explicit ExpertHistoryReader(const std::filesystem::path& path);
  ~ExpertHistoryReader();

  /// All but counts, probability and the loads of ranks.
  const ExpertHistory& overview() const { return overview_; }
  /// Of these steps: [rows, layers, experts].
  std::vector<std::int64_t> counts(std::int64_t first_row, std::int64_t rows) const;

 private:
  std::unique_ptr<Hdf5File> file_;
  ExpertHistory overview_;
};

/// Sums over the experts of each expert rank, consecutive ones in equal shares: counts [..., experts] ->
/// [..., ranks].
std::vector<std::int64_t> load_per_expert_rank(const std::vector<std::int64_t>& counts, std::int64_t experts,
                                               std::int64_t ranks);
/// How many times its even share of a row's tokens each expert received: counts [rows, experts] ->
/// [rows, experts]; 1 for a row without any.
std::vector<double> relative_loads(const std::vector<std::int64_t>& counts, std::int64_t experts);
/// Of each row of loads [rows, width]: largest / mean - 1; 0 for a row without any. [rows]
std::vector<double> load_violations(const std::vector<std::int64_t>& loads, std::int64_t width);

class ExpertHistoryWriter {
 public:
  struct Options {
    std::int64_t layers = 0, experts = 0;  // layers: those with experts, in order
    std::int64_t expert_ranks = 1;     // divides experts; may differ from the file that the run goes on with
    std::vector<std::string> domains;  // of the evaluations, in order
    std::int64_t resume_step = -1;     // go on with what is in the file up to this step; -1: begin anew
    std::int64_t flush_interval = 20;  // rows in memory before the file is written again
  };

  ExpertHistoryWriter(const std::filesystem::path& path, Options options);
  ~ExpertHistoryWriter();  // flushes; call flush() where a failure matters
  ExpertHistoryWriter(const ExpertHistoryWriter&) = delete;
  ExpertHistoryWriter& operator=(const ExpertHistoryWriter&) = delete;

  void add_step(std::int64_t step,
                const std::vector<std::int64_t>& counts,         // [layers, experts]
                const std::vector<double>& probability,          // [layers, experts]
                const std::vector<double>& layer_balance_loss);  // [layers]
  /// An evaluation of a step that is in the file already, as a run that was killed while it wrote one repeats
  /// it, is left out.
  void add_evaluation(std::int64_t step,
                      const std::vector<std::int64_t>& counts,  // [domains, layers, experts]
                      const std::vector<double>& score_sum,     // [domains, layers]
                      const std::vector<double>& entropy);      // [domains, layers]
  void flush();

 private:
  void drop_rows_after(std::int64_t step);
  /// The first rows_in_file_ steps and these evaluations again, for this run's ranks.
  void write_anew(std::int64_t evaluations);

  std::filesystem::path path_;
  Options options_;
  bool has_file_ = false;  // the file at path_ belongs to this run
  std::int64_t rows_in_file_ = 0;
  std::int64_t last_evaluation_ = -1;  // its step; one that comes again is left out
  ExpertHistory pending_;
};

}  // namespace conclave
