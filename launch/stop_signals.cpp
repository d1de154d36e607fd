#include "launch/stop_signals.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <mutex>
#include <thread>

namespace conclave {
namespace {

std::atomic<bool> requested{false};
std::mutex actions_mutex;
SignalActions actions;

sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&signals, signal);
  return signals;
}

void wait_for_signals() {
  const sigset_t signals = stop_signals();
  int signal = 0;
  for (bool first = true; sigwait(&signals, &signal) == 0; first = false) {
    const std::lock_guard lock(actions_mutex);
    if (!first) {
      if (actions.leaving) actions.leaving();
      ::_exit(128 + signal);
    }
    requested = true;
    if (signal == SIGTERM && actions.terminated) actions.terminated();
  }
}

}  // namespace

void listen_for_stop_signals() {
  const sigset_t signals = stop_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread(wait_for_signals).detach();
}

void request_stop() {
  requested = true;
}

bool stop_was_requested() {
  return requested;
}

void set_signal_actions(SignalActions new_actions) {
  const std::lock_guard lock(actions_mutex);
  actions = std::move(new_actions);
}

}  // namespace conclave
