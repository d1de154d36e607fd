#include "framework/telemetry/logger.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "framework/base/printable.h"
#include "framework/telemetry/terminal.h"

namespace conclave {
namespace {

constexpr std::size_t most_early_text = 1
                                        << 20;  // a run that never opens its file must not hoard its messages

const char* color_of(Level level) {
  switch (level) {
    case Level::info:
      return "";
    case Level::warning:
      return "\x1b[33m";
    case Level::error:
      return "\x1b[31m";
  }
  return "";
}

const char* name_of(Level level) {
  switch (level) {
    case Level::info:
      return "";
    case Level::warning:
      return "warning: ";
    case Level::error:
      return "error: ";
  }
  return "";
}

std::string date_text() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[64];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text;
}

}  // namespace

Logger::Logger(const LoggerOptions& options)
    : rank_(options.rank),
      terminal_(options.terminal),
      rewrites_(options.rank == 0 &&
                (options.style == TerminalStyle::automatic ? is_terminal(options.terminal)
                                                           : options.style == TerminalStyle::rewriting)),
      color_(options.style != TerminalStyle::plain && wants_color(options.terminal)),
      writer_(options.terminal) {}

Logger::~Logger() {
  finish_line();
  if (file_ >= 0) close(file_);
}

void Logger::open_file(const std::string& path) {
  check(file_ < 0, "Logger::open_file: ", path, " came, but a file is open already");
  file_ = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0666);
  check(file_ >= 0, Fault::request, "the log '", path, "' cannot be written: ", std::strerror(errno));
  if (rank_ == 0) before_file_ = "---- " + date_text() + "\n" + before_file_;
  if (!before_file_.empty()) append(before_file_);
  before_file_.clear();
}

void Logger::message(Level level, const std::string& given) {
  if (rank_ != 0 && level == Level::info) return;
  const std::string sentence = printable(given);
  std::string text = stamp() + (rank_ == 0 ? "" : join_text("[rank ", rank_, "] "));
  const std::string start = line_shown_ ? "\r\x1b[2K" : "";
  line_shown_ = false;
  const bool paint = color_ && level != Level::info;
  writer_.write(start + text + (paint ? color_of(level) : "") + name_of(level) + sentence +
                (paint ? "\x1b[0m" : "") + "\n");
  append(text + name_of(level) + sentence + "\n");
}

void Logger::rewrite_line(const std::string& line) {
  check(rewrites_, "Logger::rewrite_line: this output is not a terminal");
  if (writer_.is_behind()) return;  // the next one says more
  // A line that wraps could not be rewritten. Bytes are at least as many as columns, so this cuts early at
  // worst.
  writer_.write(join_text("\r", line.substr(0, columns() - 1), "\x1b[K"));
  line_shown_ = true;
}

void Logger::write_to_file(const std::string& line) {
  append(stamp() + printable(line) + "\n");
}

void Logger::finish_line() {
  if (line_shown_) writer_.write("\n");
  line_shown_ = false;
}

std::size_t Logger::columns() const {
  return static_cast<std::size_t>(terminal_columns(terminal_));
}

double Logger::elapsed_seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void Logger::append(const std::string& text) {
  if (file_ < 0) {
    if (before_file_.size() + text.size() <= most_early_text) before_file_ += text;
    return;
  }
  if (write_all(file_, text) || file_failed_) return;
  file_failed_ = true;  // said once; the run itself is fine
  writer_.write(stamp() + "warning: the log file cannot be written any more: " + std::strerror(errno) + "\n");
}

std::string Logger::stamp() const {
  char text[32];
  std::snprintf(text, sizeof text, "[%8.1f s] ", elapsed_seconds());
  return text;
}

}  // namespace conclave
