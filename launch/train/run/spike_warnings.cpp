// A warning where the loss of a step leaps out of those before it, with the data of the step in log.txt.
#include "launch/train/loss_spikes.h"
#include "launch/train/run/observer.h"

namespace conclave {
namespace {

class SpikeWarnings : public RunObserver {
 public:
  explicit SpikeWarnings(const RunView& run) : run_(run) {}

  Wish after_step(const FinishedStep& step) override {
    if (!step.is_update()) return Wish::nothing;
    const std::string spike = spikes_.add(step.result.lm_loss);
    if (spike.empty()) return Wish::nothing;
    run_.logger.warning("Step ", step.result.step, " is a spike: ", spike, "; log.txt names its data.");
    log_data_of(run_, step.result);
    return Wish::nothing;
  }

 private:
  RunView run_;
  LossSpikes spikes_;
};

}  // namespace

/// The loss is the same on all ranks, so one of them is enough.
std::unique_ptr<RunObserver> spike_warnings(const RunView& run) {
  return run.is_first_rank() ? std::make_unique<SpikeWarnings>(run) : nullptr;
}

}  // namespace conclave
