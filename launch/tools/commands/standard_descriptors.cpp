#include "launch/tools/commands/standard_descriptors.h"

#include <fcntl.h>
#include <unistd.h>

#include <initializer_list>

namespace conclave {

void open_standard_descriptors() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(descriptor, F_GETFD) >= 0) continue;
    // The lowest number that is free is the one that was found closed.
    if (::open("/dev/null", O_RDONLY) != descriptor) return;
  }
}

}  // namespace conclave
