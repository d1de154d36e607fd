#include "launch/stop_signals.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

namespace conclave {
namespace {

std::atomic<bool> requested{false};

sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&signals, signal);
  return signals;
}

void wait_for_signals() {
  const sigset_t signals = stop_signals();
  int signal = 0;
  while (sigwait(&signals, &signal) == 0)
    if (requested.exchange(true)) ::_exit(128 + signal);
}

}  // namespace

void listen_for_stop_signals() {
  const sigset_t signals = stop_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread(wait_for_signals).detach();
}

bool stop_was_requested() {
  return requested;
}

}  // namespace conclave
