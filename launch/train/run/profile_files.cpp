// With logging.profile: profile.txt and trace.json, from the steps of this start.
#include "launch/train/job.h"
#include "launch/train/run/observer.h"
#include "launch/train/step_profile.h"

namespace conclave {
namespace {

/// Only the CPU's kernels have times of their own that can be held against what it can do.
MachineRates rates_of(const RunView& run) {
  if (run.device.kind() != DeviceKind::cpu) return {};
  return {quick_matrix_rate(run.device, dtype_of_precision(run.recipe.training.precision)),
          quick_memory_rate()};
}

class ProfileFiles : public RunObserver {
 public:
  explicit ProfileFiles(const RunView& run) : directory_(run.directory), profile_(run.world, rates_of(run)) {}

  void before_step() override { recording_ = profile_.record(); }
  Wish after_step(const FinishedStep& step) override {
    recording_.reset();
    profile_.end_step(step.seconds);
    return Wish::nothing;
  }
  void end() override {
    profile_.tell([this](const std::string& table, const std::string& trace) {
      directory_->write_profile(table, trace);
    });
  }

 private:
  RunDirectory* directory_;
  StepProfile profile_;
  std::unique_ptr<Profile::Recording> recording_;
};

}  // namespace

std::unique_ptr<RunObserver> profile_files(const RunView& run) {
  return run.recipe.logging.profile ? std::make_unique<ProfileFiles>(run) : nullptr;
}

}  // namespace conclave
