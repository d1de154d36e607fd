// Being asked to stop: SIGTERM, SIGINT and SIGUSR1 let a training run finish its step, save and leave; a
// second signal ends the process at once. No handler ever runs: the signals are blocked in every thread and
// one thread waits for them. oneDNN's products keep the stack pointer inside heap memory for a while (seen
// in 2.6.3), where a handler's frame would overwrite data.
#pragma once

namespace conclave {

/// Call before any other thread is started, MPI's and OpenMP's included: threads inherit which signals are
/// blocked.
void listen_for_stop_signals();
bool stop_was_requested();

}  // namespace conclave
