#include "framework/telemetry/terminal.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace conclave {

bool is_terminal(int descriptor) {
  if (std::getenv("OMPI_COMM_WORLD_RANK") == nullptr) return isatty(descriptor) == 1;
  const std::string path = "/proc/" + std::to_string(getppid()) + "/fd/" + std::to_string(descriptor);
  const int launcher = open(path.c_str(), O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (launcher < 0) return false;
  const bool terminal = isatty(launcher) == 1;
  close(launcher);
  return terminal;
}

bool wants_color(int descriptor) {
  const char* no_color = std::getenv("NO_COLOR");
  if (no_color != nullptr && *no_color != '\0') return false;
  const char* kind = std::getenv("TERM");
  return kind != nullptr && std::string(kind) != "dumb" && is_terminal(descriptor);
}

int terminal_columns(int descriptor) {
  winsize size{};
  return ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 100;
}

bool write_all(int descriptor, const std::string& text) {
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = write(descriptor, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    done += static_cast<std::size_t>(written);
  }
  return true;
}

}  // namespace conclave
