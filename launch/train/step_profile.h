// StepProfile: where the time of a run's steps goes, with logging.profile. The file profile.txt is rank 0's:
// it tells the time by layer, purpose and phase, and by kernel against what the machine can do. The file
// trace.json shows single kernels and waits of a few steps on the first ranks, for ui.perfetto.dev or
// chrome://tracing.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "framework/device/profile.h"
#include "parallel/communicator.h"

namespace conclave {

/// MachineRates are what a rank can do at best, measured on it, per second. They are zero where kernels are
/// queued: their times are then not their own, and nothing is held against them.
struct MachineRates {
  double operations = 0;  // of matrix products in the run's type
  double bytes = 0;       // read and written, beyond the caches
};

/// Returns the text of profile.txt: means over so many steps of so many seconds each.
std::string profile_table(const Profile& profile, std::int64_t steps, double step_seconds,
                          const MachineRates& rates);

/// Returns the events as a JSON array in Chrome's trace format; times in microseconds from `zero` on.
std::string trace_events(const Profile& profile, int rank, Profile::Clock::time_point zero);

class StepProfile {
 public:
  /// The constructor is collective, as the ranks' clocks start together.
  StepProfile(Communicator& world, const MachineRates& rates);

  /// Returns a recording that is to be held during a step.
  std::unique_ptr<Profile::Recording> record() { return std::make_unique<Profile::Recording>(profile_); }
  /// Ends a step after its recording. The first step warms up and is left out; the next few are kept event by
  /// event.
  void end_step(double seconds);
  /// Gives the texts of both files to `keep`, on rank 0. It gives nothing before the second step. Collective.
  void tell(const std::function<void(const std::string& table, const std::string& trace)>& keep);

 private:
  Communicator& world_;
  MachineRates rates_;
  Profile profile_;
  Profile::Clock::time_point zero_;
  std::int64_t steps_ = 0;
  double seconds_ = 0;
};

}  // namespace conclave
