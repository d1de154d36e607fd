#include "launch/train/stop_signals.h"

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

bool is_ignored(int signal) {
  struct ::sigaction now {};
  return ::sigaction(signal, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;
}

/// A blocked signal reaches sigwait even where it is ignored, so those are left out.
sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1})
    if (!is_ignored(signal)) sigaddset(&signals, signal);
  return signals;
}

void wait_for_signals(sigset_t signals) {
  int signal = 0;
  for (bool first = true; sigwait(&signals, &signal) == 0; first = false) {
    const std::lock_guard lock(actions_mutex);
    if (first) requested = true;
    try {
      if (!first && actions.leaving) actions.leaving();
      if (first && signal == SIGTERM && actions.terminated) actions.terminated();
    } catch (...) {  // without memory there are no words, and the stop comes all the same
    }
    if (!first) ::_exit(128 + signal);
  }
}

}  // namespace

void listen_for_stop_signals() {
  const sigset_t signals = stop_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread(wait_for_signals, signals).detach();
}

void ignore_closed_pipes() {
  std::signal(SIGPIPE, SIG_IGN);
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
