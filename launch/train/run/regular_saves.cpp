// A save every checkpoint.interval steps, after the last step, and where the run is asked to stop.
#include "launch/train/run/observer.h"

namespace conclave {
namespace {

class RegularSaves : public RunObserver {
 public:
  explicit RegularSaves(const RunView& run) : run_(run) {}

  Wish after_step(const FinishedStep& step) override {
    // While steps are being skipped, a good checkpoint is not replaced by one that may carry the reason.
    const bool is_due = is_every(run_.recipe.checkpoint.interval, step.result.step) && !step.result.skipped &&
                        run_.rollbacks.skipped_in_row() == 0;
    return step.is_last || step.ends_early || is_due ? Wish::save : Wish::nothing;
  }

 private:
  RunView run_;
};

}  // namespace

std::unique_ptr<RunObserver> regular_saves(const RunView& run) {
  return std::make_unique<RegularSaves>(run);
}

}  // namespace conclave
