#include "framework/device/emulated_memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <mutex>

#include "framework/base/error.h"
#include "framework/device/sanitizer.h"

namespace conclave {
namespace {

constexpr std::size_t range_bytes = std::size_t{1} << 36;  // of addresses; memory comes with the first touch
constexpr std::size_t page_bytes = 4096;
constexpr std::size_t gap_bytes = 256;  // between blocks
constexpr std::size_t alignment = 256;  // of blocks, as cudaMalloc gives it

class EmulatedRange {
 public:
  EmulatedRange() {
    void* range = mmap(nullptr, range_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(range != MAP_FAILED, Fault::machine, "emulated: no room for ", range_bytes, " bytes of addresses");
    begin_ = static_cast<std::byte*>(range);
  }

  void open() {
    const std::lock_guard lock(mutex_);
    if (open_++ == 0) protect(PROT_READ | PROT_WRITE);
  }
  void close() {
    const std::lock_guard lock(mutex_);
    if (--open_ == 0) protect(PROT_NONE);
  }

  void* extend(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const std::size_t at = used_, end = at + (bytes + gap_bytes + alignment - 1) / alignment * alignment;
    if (end > range_bytes) return nullptr;
    used_ = end;
    protect(open_ > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
    sanitizer::forbid(begin_ + at, end - at);
    return begin_ + at;
  }

  bool contains(const void* begin, std::size_t bytes) const {
    const auto first = reinterpret_cast<std::uintptr_t>(begin),
               own = reinterpret_cast<std::uintptr_t>(begin_);
    return first >= own && first + bytes <= own + range_bytes;
  }

 private:
  void protect(int protection) {
    const std::size_t bytes = (used_ + page_bytes - 1) / page_bytes * page_bytes;
    if (bytes == 0) return;
    const bool done = mprotect(begin_, bytes, protection) == 0;
    check(done, Fault::machine, "emulated: mprotect of ", bytes, " bytes: ", std::strerror(errno));
  }

  std::byte* begin_ = nullptr;
  std::size_t used_ = 0;
  int open_ = 0;
  std::mutex mutex_;
};

EmulatedRange& range() {
  static EmulatedRange* range = new EmulatedRange;
  return *range;
}

struct sigaction action_before;

/// Says why, and lets the fault happen again under the action before, so that a sanitizer still prints its
/// stack.
void explain_fault(int, siginfo_t* info, void*) {
  if (is_emulated_memory(info->si_addr, 1)) {
    constexpr char sentence[] =
        "emulated: the host touched device memory outside a kernel or copy; take values with "
        "Tensor::to_host\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, sentence, sizeof(sentence) - 1);
  }
  sigaction(SIGSEGV, &action_before, nullptr);
}

}  // namespace

EmulatedAccess::EmulatedAccess() {
  range().open();
}

EmulatedAccess::~EmulatedAccess() {
  range().close();
}

void* new_emulated_block(std::size_t bytes) {
  return range().extend(bytes);
}

bool is_emulated_memory(const void* begin, std::size_t bytes) {
  return range().contains(begin, bytes);
}

void explain_emulated_faults() {
  range();
  struct sigaction action = {};
  action.sa_sigaction = explain_fault;
  action.sa_flags = SA_SIGINFO;
  const bool installed = sigaction(SIGSEGV, &action, &action_before) == 0;
  check(installed, Fault::machine, "emulated: sigaction: ", std::strerror(errno));
}

}  // namespace conclave
