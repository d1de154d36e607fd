// experts.h5: who was chosen how often, over the whole run. Rows wait in memory and are added to a copy of
// the file that then replaces it: a process killed while HDF5 has a file open for writing would cost the
// whole file. flush() belongs before each checkpoint; what a killed run loses beyond that is computed again
// on resuming.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace conclave {

/// What experts.h5 holds; each array is row-major.
struct ExpertHistory {
  std::int64_t layers = 0, experts = 0;
  std::vector<std::string> domains;             // of the evaluations
  std::vector<std::int64_t> step;               // [steps]
  std::vector<std::int64_t> counts;             // [steps, layers, experts]; tokens sent to each expert
  std::vector<double> probability;              // [steps, layers, experts]; mean router probability
  std::vector<std::int64_t> evaluation_step;    // [evaluations]
  std::vector<std::int64_t> evaluation_counts;  // [evaluations, domains, layers, experts]
};

ExpertHistory read_expert_history(const std::filesystem::path& path);

class ExpertHistoryWriter {
 public:
  struct Options {
    std::int64_t layers = 0, experts = 0;  // layers: those with experts, in order
    std::vector<std::string> domains;      // of the evaluations, in order
    std::int64_t resume_step = -1;         // go on with what is in the file up to this step; -1: begin anew
    std::int64_t flush_interval = 20;      // rows in memory before the file is written again
  };

  ExpertHistoryWriter(const std::filesystem::path& path, Options options);
  ~ExpertHistoryWriter();  // flushes; call flush() where a failure matters
  ExpertHistoryWriter(const ExpertHistoryWriter&) = delete;
  ExpertHistoryWriter& operator=(const ExpertHistoryWriter&) = delete;

  void add_step(std::int64_t step,
                const std::vector<std::int64_t>& counts,  // [layers, experts]
                const std::vector<double>& probability);  // [layers, experts]
  void add_evaluation(std::int64_t step,
                      const std::vector<std::int64_t>& counts);  // [domains, layers, experts]
  void flush();

 private:
  void drop_rows_after(std::int64_t step);

  std::filesystem::path path_;
  Options options_;
  bool has_file_ = false;  // the file at path_ belongs to this run
  std::int64_t rows_in_file_ = 0;
  ExpertHistory pending_;
};

}  // namespace conclave
