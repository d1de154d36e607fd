// Writes experts.h5 while a run goes on. Rows wait in memory until there are enough for a segment, a file
// that is written once. Ten segments are merged into one, and ten of those again. So a row is written a few
// times however long the run is. A rename puts the new index in place of the old one, so at every moment
// experts.h5 is whole. A caller flushes before each checkpoint; a killed run loses later rows, which are
// computed again on resuming.
//
// A disk that refuses a write does not end the run: it is said once, and rows wait until there is room.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "framework/store/history_index.h"

namespace conclave {

struct ExpertHistoryOptions {
  std::int64_t layers = 0, experts = 0;  // layers: those with experts, in order
  std::int64_t expert_ranks = 1;     // divides experts; may differ from the file that the run goes on with
  std::vector<std::string> domains;  // of the evaluations, in order; may differ likewise
  std::int64_t resume_step = -1;     // go on with what is in the file up to this step; -1: begin anew
  std::int64_t flush_interval = 20;  // rows in memory before a segment is written
  /// Rows that wait for a disk take so much memory at most; beyond that the oldest are given up.
  std::size_t most_waiting_bytes = std::size_t{128} << 20;
  std::size_t largest_segment = std::size_t{256} << 20;  // bytes; a segment is composed in memory
  /// Is called when a disk refuses, when it takes rows again, and when a damaged history was moved aside.
  /// Without it the constructor, flush() and add_step() throw.
  std::function<void(const std::string&)> warn{};
};

class ExpertHistoryWriter {
 public:
  using Options = ExpertHistoryOptions;

  /// Goes on with the file at the path. A file that is damaged, or has other experts, is moved aside with its
  /// segments, and a new one begins. Without `warn` such a file is a Fault::data. Fault::machine where
  /// nothing can be written.
  ExpertHistoryWriter(const std::filesystem::path& path, Options options);
  ~ExpertHistoryWriter();  // flushes, and says what is lost
  ExpertHistoryWriter(const ExpertHistoryWriter&) = delete;
  ExpertHistoryWriter& operator=(const ExpertHistoryWriter&) = delete;

  void add_step(std::int64_t step,
                const std::vector<std::int64_t>& counts,         // [layers, experts]
                const std::vector<double>& probability,          // [layers, experts]
                const std::vector<double>& layer_balance_loss);  // [layers]
  /// An evaluation of a step that is in the file already is left out. A run that was killed while it wrote
  /// one repeats it.
  void add_evaluation(std::int64_t step,
                      const std::vector<std::int64_t>& counts,  // [domains, layers, experts]
                      const std::vector<double>& score_sum,     // [domains, layers]
                      const std::vector<double>& entropy);      // [domains, layers]
  /// On return all rows so far are in experts.h5, or the reason why not has been told.
  void flush();

 private:
  void begin_anew();
  void go_on();
  void go_on_or_set_aside();
  /// Moves the files there to experts-damaged-1, or the next free number, and returns that place.
  std::filesystem::path set_aside();
  /// Writes the rows of an earlier version's file, or of another layout, as segments of this run's.
  void write_anew(const OpenHistory& history);
  /// Removes segments that the index does not name: a killed run's, and those of later steps.
  void remove_others();
  HistorySegment compose(const std::vector<const HistorySource*>& sources,
                         const std::vector<std::string>& domains, std::int64_t level);
  void write_waiting();
  void merge();
  void publish();
  void note_failure(const std::string& reason);
  void note_success();
  void keep_within_memory();

  std::filesystem::path path_;
  Options options_;
  HistoryIndex index_;     // as it is to be
  bool published_ = true;  // and as it is on the disk
  WaitingRows waiting_;
  std::int64_t last_evaluation_ = -1;           // its step
  std::int64_t last_number_ = 0;                // of all names that a segment has had
  std::vector<std::string> merged_, outdated_;  // segments that no index, or only the last one, still names
  bool failing_ = false;
  std::int64_t next_try_ = 0;                               // rows that wait then
  std::int64_t lost_ = 0, first_lost_ = 0, last_lost_ = 0;  // steps
};

}  // namespace conclave
