#include "launch/train/run/observers.h"

#include <initializer_list>

#include "framework/base/text.h"

namespace conclave {

// Each is defined in the file of its name.
ObserverMaker profile_files, step_lines, sample_lines, dead_experts, progress_line, save_progress,
    missing_targets, spike_warnings, skipped_steps, rank_comparison, regular_saves, evaluations;

std::vector<std::unique_ptr<RunObserver>> observers_of(const RunView& run) {
  std::vector<std::unique_ptr<RunObserver>> observers;
  // The order is that of the effects: what a step measured is written before its numbers may end the run or
  // send it back. A save comes after that, and the evaluation after the save, so that a killed evaluation
  // costs no step.
  for (ObserverMaker* make : std::initializer_list<ObserverMaker*>{
           profile_files, step_lines, sample_lines, dead_experts, progress_line, save_progress,
           missing_targets, spike_warnings, skipped_steps, rank_comparison, regular_saves, evaluations})
    if (auto observer = make(run)) observers.push_back(std::move(observer));
  return observers;
}

void log_data_of(const RunView& run, const StepResult& result) {
  for (const std::string& line : run.training.describe(result.step - 1))
    run.logger.write_to_file(join_text("Data of step ", result.step, ": ", line));
}

}  // namespace conclave
