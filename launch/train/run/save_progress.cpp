// A save that is under way goes on while the run takes steps: it moves on by what all ranks say in each
// step's votes.
#include "launch/train/run/observer.h"

namespace conclave {
namespace {

class SaveProgress : public RunObserver {
 public:
  explicit SaveProgress(const RunView& run) : checkpointing_(run.saves.checkpointing()) {}

  Wish after_step(const FinishedStep& step) override {
    if (step.is_update()) checkpointing_.trust_last_save();
    checkpointing_.after_step(step.result.votes);
    return Wish::nothing;
  }

 private:
  Checkpointing& checkpointing_;
};

}  // namespace

std::unique_ptr<RunObserver> save_progress(const RunView& run) {
  return std::make_unique<SaveProgress>(run);
}

}  // namespace conclave
