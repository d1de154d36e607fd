// A line of metrics.jsonl and a row of experts.h5 for each step, every logging.interval steps.
#include "launch/train/model_size.h"
#include "launch/train/run/observer.h"

namespace conclave {
namespace {

class StepLines : public RunObserver {
 public:
  explicit StepLines(const RunView& run)
      : run_(run), flops_(training_flops_per_token(run.recipe.model, run.recipe.data.sequence_length)) {}

  Wish after_step(const FinishedStep& step) override {
    if (run_.directory != nullptr && is_every(run_.recipe.logging.interval, step.result.step))
      run_.directory->write_step(step.result, step.seconds, flops_, step.traffic);
    return Wish::nothing;
  }

 private:
  RunView run_;
  double flops_;  // of a token
};

}  // namespace

std::unique_ptr<RunObserver> step_lines(const RunView& run) {
  return std::make_unique<StepLines>(run);
}

}  // namespace conclave
