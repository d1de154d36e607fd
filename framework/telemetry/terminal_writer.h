// TerminalWriter: what is shown to people never makes a run wait. A terminal can be stopped (Ctrl-S), a pager
// or another reader of a pipe can pause, and a write to it then lasts for as long as they like. So a thread
// of its own writes; what waits for it is bounded, and beyond the bound lines are left out and counted.
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
  /// Waits for a moment until everything is written; what is not by then is given up.
  ~TerminalWriter();
  TerminalWriter(const TerminalWriter&) = delete;
  TerminalWriter& operator=(const TerminalWriter&) = delete;

  /// Whole lines, or what a line begins with. Returns at once.
  void write(const std::string& text);
  /// Says whether something waits: a line that the next one replaces need not be added to it.
  bool is_behind() const;

 private:
  struct Shared;  // with the thread, which outlives this where it hangs in a write
  void start_thread();

  int descriptor_;
  bool at_once_;
  std::shared_ptr<Shared> shared_;
};

/// Writes the text if the descriptor takes it within these seconds; for words that are said before an end
/// which must come. False where it does not.
bool write_within(double seconds, int descriptor, const std::string& text);

}  // namespace conclave
