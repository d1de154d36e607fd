#include "launch/tools/commands/ignored_signals.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <csignal>

namespace conclave {
namespace {

constexpr std::array signals = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
std::array<bool, signals.size()> ignored;

/// Runs before the constructors of all libraries, and therefore asks the kernel itself.
__attribute__((no_sanitize("address", "undefined", "thread"))) void note_ignored_signals(int, char**,
                                                                                         char**) {
  for (std::size_t i = 0; i < signals.size(); ++i) {
    // The kernel's structure: the handler, flags, a restorer and a mask of 64 signals.
    struct {
      void (*handler)(int);
      unsigned long rest[3];
    } now = {};
    ignored[i] = ::syscall(SYS_rt_sigaction, signals[i], nullptr, &now, 8) == 0 && now.handler == SIG_IGN;
  }
}

__attribute__((section(".preinit_array"), used)) void (*const note_at_start)(int, char**,
                                                                             char**) = note_ignored_signals;

}  // namespace

void restore_ignored_signals() {
  for (std::size_t i = 0; i < signals.size(); ++i)
    if (ignored[i]) std::signal(signals[i], SIG_IGN);
}

}  // namespace conclave
