// Logger writes messages to the terminal and to the run's log.txt, with the time since the start. Rank 0
// speaks; other ranks are heard only with warnings and errors, which name them. A terminal that pauses holds
// up no rank (terminal_writer.h). The logger is passed as an argument; there is no global one. It is not for
// use by several threads at once.
#pragma once

#include <chrono>
#include <string>

#include "framework/base/error.h"
#include "framework/telemetry/terminal_writer.h"

namespace conclave {

enum class Level { info, warning, error };

/// TerminalStyle says how the terminal is treated; automatic asks it.
enum class TerminalStyle { automatic, plain, rewriting };

struct LoggerOptions {
  int rank = 0;
  int terminal = 1;  // file descriptor; -1: none, the file alone
  TerminalStyle style = TerminalStyle::automatic;
};

class Logger {
 public:
  explicit Logger(const LoggerOptions& options = {});
  ~Logger();
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  /// Appends from now on to this file, beginning with the lines that came before. Every rank may open the
  /// same file, as each line is one appending write. A link is not followed. Fault::request where it cannot
  /// be written.
  void open_file(const std::string& path);

  template <class... Parts>
  void info(const Parts&... parts) {
    message(Level::info, join_text(parts...));
  }
  template <class... Parts>
  void warning(const Parts&... parts) {
    message(Level::warning, join_text(parts...));
  }
  template <class... Parts>
  void error(const Parts&... parts) {
    message(Level::error, join_text(parts...));
  }
  void message(Level level, const std::string& sentence);

  /// Shows the line in place of the one shown before, not in the file. It is allowed only where rewrites() is
  /// true.
  void rewrite_line(const std::string& line);
  /// Writes a line to the file alone.
  void write_to_file(const std::string& line);
  bool has_file() const { return file_ >= 0; }
  /// Leaves the rewritten line standing; the next output starts below it.
  void finish_line();

  int rank() const { return rank_; }
  bool rewrites() const { return rewrites_; }
  /// The width of the terminal in columns; 100 where it does not say.
  std::size_t columns() const;
  double elapsed_seconds() const;

 private:
  void append(const std::string& line);
  std::string stamp() const;

  int rank_, terminal_, file_ = -1;
  bool rewrites_, color_, line_shown_ = false, file_failed_ = false;
  TerminalWriter writer_;
  std::string before_file_;  // lines that came before open_file
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace conclave
