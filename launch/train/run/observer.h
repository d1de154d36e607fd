// RunObserver: one thing that a training run does beside its steps, such as metrics, checkpoints or
// evaluations. A run tells its observers what happens in the order of their list. It does what one wishes
// before the next one is told. All ranks have the same observers and tell them together, so every function
// here may be collective.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "framework/data/batch.h"
#include "launch/train/run/run_view.h"
#include "launch/train/trainer.h"
#include "parallel/communicator.h"

namespace conclave {

/// A step that is over, as observers see it.
struct FinishedStep {
  const StepResult& result;  // equal on all ranks
  double seconds = 0;        // on this rank
  TrafficTable traffic;      // handed over to other ranks by this one, in this step
  bool is_last = false;      // of the run
  bool ends_early = false;   // a rank was asked to stop, and the run has more steps
  /// Says whether the step moved the parameters.
  bool is_update() const { return !result.skipped && !result.no_targets; }
};

/// An observer asks the run for this. Its wish must be the same on all ranks.
enum class Wish {
  nothing,
  save,
  go_back,  // to an older checkpoint, as Rollbacks chooses it
  stop,     // with a save first, where the last step is not saved yet
};

class RunObserver {
 public:
  virtual ~RunObserver() = default;

  /// This start of the run begins, perhaps after the step of a checkpoint. A stop saves nothing here.
  virtual Wish begin() { return Wish::nothing; }
  /// A step begins.
  virtual void before_step() {}
  /// This rank has taken sequences of the step's global batch, from position `first` on.
  virtual void take(const Batch& /*batch*/, std::int64_t /*first*/) {}
  virtual Wish after_step(const FinishedStep& /*step*/) { return Wish::nothing; }
  /// The longest that after_step may take for the step of this number. training.time_limit leaves room for
  /// it.
  virtual double seconds_after(std::int64_t /*step*/) const { return 0; }
  /// The run ends in order, complete or stopped, and its state is saved.
  virtual void end() {}
  /// The part of a complete run's last line that it writes, such as "mean validation loss 1.2345 nats"; may
  /// be empty.
  virtual std::string summary() const { return {}; }
};

/// Makes an observer, or none where the recipe does not ask for it. Collective.
using ObserverMaker = std::unique_ptr<RunObserver>(const RunView& run);

}  // namespace conclave
