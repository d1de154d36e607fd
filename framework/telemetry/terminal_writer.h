// TerminalWriter shows text to people without ever making a run wait. A terminal can be stopped (Ctrl-S), and
// a pager or another reader of a pipe can pause. A write to it then lasts for as long as they like. So a
// thread of its own writes. The text that waits for it is bounded; beyond the bound, lines are left out and
// counted.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace conclave {

class TerminalWriter {
 public:
  /// `most_waiting`: bytes that may wait. A file is written at once, as it never pauses, and so is everything
  /// where no thread can be started.
  explicit TerminalWriter(int descriptor, std::size_t most_waiting = std::size_t{1} << 18);
  /// Waits for a moment until everything is written; the rest is given up then.
  ~TerminalWriter();
  TerminalWriter(const TerminalWriter&) = delete;
  TerminalWriter& operator=(const TerminalWriter&) = delete;

  /// Writes whole lines, or the beginning of a line. Returns at once.
  void write(const std::string& text);
  /// True while text waits; then a line that the next one replaces need not be added.
  bool is_behind() const;

 private:
  struct Shared;  // with the thread, which outlives this where it hangs in a write
  void start_thread();

  int descriptor_;
  bool at_once_;
  std::shared_ptr<Shared> shared_;
};

/// Writes the text if the descriptor takes it within these seconds, else returns false. It is for words
/// before an end that must come.
bool write_within(double seconds, int descriptor, const std::string& text);

}  // namespace conclave
