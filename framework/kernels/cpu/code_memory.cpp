#include "framework/kernels/cpu/code_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "framework/base/error.h"

namespace conclave::cpu {

std::string lack_of_code_memory() {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  void* memory = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return "";
  const bool given = ::mprotect(memory, page, PROT_READ | PROT_WRITE | PROT_EXEC) == 0;
  const int error = errno;
  ::munmap(memory, page);
  if (given) return "";
  return join_text(
      "; this system gives no memory that is written and executed (", std::strerror(error),
      "), in which oneDNN makes its code. SELinux (execmem) or systemd (MemoryDenyWriteExecute) can "
      "allow it");
}

}  // namespace conclave::cpu
