// Memory for code that is made at run time, which oneDNN's products are. Some systems refuse it: SELinux
// without execmem, systemd's MemoryDenyWriteExecute, hardened kernels.
#pragma once

#include <string>

namespace conclave::cpu {

/// A clause for an error of oneDNN where this process gets no such memory ("; this system gives ..."), else
/// "".
std::string lack_of_code_memory();

}  // namespace conclave::cpu
