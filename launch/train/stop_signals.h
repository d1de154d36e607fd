// Being asked to stop: SIGTERM, SIGINT, SIGHUP and SIGUSR1 let a training run finish its step, save and
// leave. A second signal ends the process at once with 128 + its number. A signal that is ignored when the
// process starts, as SIGHUP is under nohup, stays ignored.
//
// No handler ever runs: the signals are blocked in every thread and one thread waits for them. The products
// of oneDNN keep the stack pointer inside heap memory for a while (seen in 2.6.3), where a handler's frame
// would overwrite data.
#pragma once

#include <functional>

namespace conclave {

/// Call it before any other thread is started, MPI's and OpenMP's included: threads inherit which signals are
/// blocked.
void listen_for_stop_signals();
/// Makes writing to a pipe that has no reader an error of write(), as of a full disk, and not the end of the
/// process.
void ignore_closed_pipes();
/// Does as if a signal had come, but one that comes later is still the first.
void request_stop();
bool stop_was_requested();

/// The thread that waits for signals does this besides; it must not call MPI.
struct SignalActions {
  std::function<void()> terminated;  // SIGTERM came, which may mean that mpirun is ending the job
  std::function<void()> leaving;     // a second signal came: the process ends when this returns
};
/// Replaces the actions; none are running any more when this returns.
void set_signal_actions(SignalActions actions);

}  // namespace conclave
