// Steps that were skipped, as their loss or gradients were not finite: a warning for each, the way back after
// training.skip_limit of them in a row, and the end of a run whose last step is one.
#include "framework/base/text.h"
#include "launch/train/run/observer.h"

namespace conclave {
namespace {

class SkippedSteps : public RunObserver {
 public:
  explicit SkippedSteps(const RunView& run) : run_(run) {}

  Wish after_step(const FinishedStep& step) override {
    const StepResult& result = step.result;
    Rollbacks& rollbacks = run_.rollbacks;
    if (!result.no_targets) rollbacks.note(result, run_.trainer);
    if (result.skipped && run_.is_first_rank()) {
      run_.logger.warning("Step ", result.step, " is skipped: the loss is ", measured_text(result.loss),
                          " and the gradient norm ", measured_text(result.gradient_norm), "; ",
                          result.not_finite, ". (", rollbacks.skipped_in_row(), " in a row, ",
                          rollbacks.skipped(), " in all)");
      log_data_of(run_, result);
    }
    if (step.is_last && rollbacks.skipped_in_row() > 0) end_the_run(result);
    return rollbacks.are_due() ? Wish::go_back : Wish::nothing;
  }

 private:
  /// The last step's update was skipped, so the run has not done what it was asked for. The state after the
  /// last update that was made is saved under its own step; then Fault::numeric on all ranks.
  [[noreturn]] void end_the_run(const StepResult& result) {
    Checkpointing& checkpointing = run_.saves.checkpointing();
    if (run_.saves.misses_updates()) {
      run_.rollbacks.return_to_last_update(run_.trainer);
      run_.saves.save(Follows::nothing);
    }
    checkpointing.finish();
    const std::string newest = checkpointing.newest_checkpoint();
    throw Error(Fault::numeric,
                join_text(run_.rollbacks.describe_end(result), " ",
                          checkpointing.last_failure() ? *checkpointing.last_failure() + " " : "",
                          newest.empty() ? "There is no checkpoint"
                                         : "The newest checkpoint, from before these steps, is " + newest,
                          ". A lower optimizer.lr or more warm-up may help; log.txt names the layer and the "
                          "data. The same command tries the skipped steps again."),
                Reach::all_ranks);
  }

  RunView run_;
};

}  // namespace

std::unique_ptr<RunObserver> skipped_steps(const RunView& run) {
  return std::make_unique<SkippedSteps>(run);
}

}  // namespace conclave
