// RunDirectory: what a training run leaves behind, written by rank 0 alone: the resolved recipe,
// metrics.jsonl, samples.jsonl and tensorboard/ where they are asked for, experts.h5, log.txt and
// checkpoints/.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "framework/data/batch.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/expert_history_writer.h"
#include "framework/telemetry/logger.h"
#include "framework/telemetry/metrics.h"
#include "launch/train/directory_lock.h"
#include "launch/train/evaluator.h"
#include "launch/train/passes.h"
#include "launch/train/run/event_log.h"
#include "launch/train/trainer.h"

namespace conclave {

/// Where a run stands before it starts: nothing there, or a checkpoint to go on from.
struct ResumePoint {
  std::optional<std::filesystem::path> checkpoint;
  std::vector<std::string> rejected;  // damaged checkpoints, one sentence each
};

/// Looks at recipe.output, all ranks together. With checkpoint.resume=false a directory that holds a run is
/// refused; a run whose every checkpoint is damaged is a Fault::data and never a silent start from zero.
/// Collective.
ResumePoint find_resume_point(const Recipe& recipe, Communicator& world);

class RunDirectory {
 public:
  /// Creates the directory's files. `lock` must outlive this: each writer below first looks whether the place
  /// is still the run's, and throws a Fault::machine where it is not. `resumed_step`: rows of later steps are
  /// dropped from metrics.jsonl, samples.jsonl and experts.h5, and TensorBoard is told to forget them.
  /// Without one, what an earlier start has measured is moved aside. `resumed_recipe`: the checkpoint's.
  /// `warn` hears of what cannot be written and does not end the run.
  RunDirectory(const DirectoryLock& lock, const Recipe& recipe, std::optional<std::int64_t> resumed_step,
               const std::string& resumed_recipe, std::vector<std::string> domains,
               std::function<void(const std::string&)> warn);

  /// Sentences that say what was moved aside or dropped.
  const std::vector<std::string>& notes() const { return notes_; }

  /// `traffic`: what rank 0 handed over to other ranks in this step, by purpose.
  void write_step(const StepResult& result, double seconds, double model_flops_per_token,
                  const TrafficTable& traffic);
  /// The evaluation of the resumed step is not in metrics.jsonl, or not to its end: the run was stopped or
  /// killed between the save and the end of the evaluation that follows.
  bool lacks_evaluation() const { return lacks_evaluation_; }
  /// Metrics come last, and the mean is their last line: where it stands, experts.h5 has the evaluation too.
  void write_evaluation(std::int64_t step, const std::vector<DomainResult>& results);
  /// The sequences of a step in the order of the global batch, where recipe.logging.samples asks for them.
  void write_samples(std::int64_t step, bool skipped, const std::vector<DrawnSequence>& drawn);
  /// A checkpoint of now counts on these: the expert history, and how often the run went over its text.
  void write_before_save(const std::vector<DatasetPasses>& passes, std::int64_t step, std::int64_t steps);
  void write_profile(const std::string& table, const std::string& trace);
  void flush();

 private:
  const DirectoryLock& lock_;
  std::vector<std::string> notes_;
  std::filesystem::path path_;
  std::int64_t experts_per_layer_, expert_ranks_;
  bool lacks_evaluation_;  // before metrics_, whose file this looks into
  MetricsWriter metrics_;
  std::unique_ptr<MetricsWriter> samples_;  // null: not asked for
  ExpertHistoryWriter experts_;
  std::unique_ptr<EventLog> events_;  // null: not asked for
};

}  // namespace conclave
