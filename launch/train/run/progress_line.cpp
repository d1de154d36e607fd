// The line on the terminal that says how far the run is and how fast.
#include <cmath>

#include "framework/telemetry/progress.h"
#include "launch/train/job.h"
#include "launch/train/model_size.h"
#include "launch/train/run/observer.h"

namespace conclave {
namespace {

/// The matrix products of all ranks together, in operations per second. There is no such measure in float64.
double matrix_rate_of(const RunView& run) {
  const DType dtype = dtype_of_precision(run.recipe.training.precision);
  if (dtype == DType::float64) return std::nan("");
  const Tensor rate = Tensor::from(std::vector<double>{quick_matrix_rate(run.device, dtype)}, {1});
  run.world.all_reduce(rate, ReduceOp::sum, Purpose::statistics);
  return rate.item();
}

class ProgressLine : public RunObserver {
 public:
  explicit ProgressLine(const RunView& run)
      : flops_(training_flops_per_token(run.recipe.model, run.recipe.data.sequence_length)),
        matrix_rate_(matrix_rate_of(run)),
        progress_(run.logger, run.recipe.training.steps) {}

  Wish after_step(const FinishedStep& step) override {
    const StepResult& result = step.result;
    const double rate = result.no_targets ? std::nan("") : static_cast<double>(result.tokens) / step.seconds;
    progress_.update({.step = result.step,
                      .loss = result.lm_loss,
                      .tokens_per_second = rate,
                      .matrix_rate_fraction = matrix_rate_ > 0 ? rate * flops_ / matrix_rate_ : std::nan(""),
                      .load_imbalance = result.balance.max_load_violation,
                      .step_seconds = step.seconds});
    return Wish::nothing;
  }

 private:
  double flops_;        // of a token
  double matrix_rate_;  // not a number: not known
  Progress progress_;
};

}  // namespace

std::unique_ptr<RunObserver> progress_line(const RunView& run) {
  return std::make_unique<ProgressLine>(run);
}

}  // namespace conclave
