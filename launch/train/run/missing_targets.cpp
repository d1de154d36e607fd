// Steps whose global batch has no target. They are no fault of the numbers, so neither training.skip_limit
// nor the rollbacks count them. A run that makes no update at all has nothing to save and ends with
// Fault::numeric.
#include "launch/train/run/observer.h"

namespace conclave {
namespace {

class MissingTargets : public RunObserver {
 public:
  explicit MissingTargets(const RunView& run) : run_(run) {}

  Wish after_step(const FinishedStep& step) override {
    if (!step.result.no_targets) return Wish::nothing;
    ++left_out_;
    if (run_.is_first_rank()) {
      run_.logger.warning("Step ", step.result.step, " is left out: none of the ", step.result.tokens,
                          " tokens of its global batch has a target; log.txt names its data.");
      log_data_of(run_, step.result);
    }
    // A last step after skipped ones ends by the sentence of those.
    if (step.is_last && run_.rollbacks.skipped_in_row() == 0 && run_.trainer.updates() == run_.first_updates)
      end_without_an_update();
    return Wish::nothing;
  }

 private:
  [[noreturn]] void end_without_an_update() const {
    throw Error(
        Fault::numeric,
        join_text("step ", run_.trainer.steps_done(),
                  " was the last one, and the run has not made one update: none of the ", left_out_,
                  left_out_ == 1 ? " step" : " steps",
                  " since this command began had a target. A target is a token that another one of its "
                  "document predicts; longer documents or data.document_mask=false give some."),
        Reach::all_ranks);
  }

  RunView run_;
  std::int64_t left_out_ = 0;  // since this command began
};

}  // namespace

std::unique_ptr<RunObserver> missing_targets(const RunView& run) {
  return std::make_unique<MissingTargets>(run);
}

}  // namespace conclave
