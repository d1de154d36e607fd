// One way to fail: check(condition, parts...) throws an Error whose text says what came and what was
// expected. The Fault decides the exit code of the job. Nothing here prints or ends a process; launch/ does.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace conclave {

/// Whose fault an error is; the value is the exit code that the job ends with.
enum class Fault {
  internal = 1,  // a bug in Conclave: a shape or an invariant does not hold
  request = 2,   // usage, recipe or layout is wrong
  data = 3,      // input data or a checkpoint is missing, corrupt or incompatible
  numeric = 4,   // training failed numerically and gave up
  machine = 5,   // out of memory, disk full, a rank died
};

/// Says who throws the same error: this rank alone, or by agreement every rank of the job. In the second case
/// one rank may speak for all.
enum class Reach { this_rank, all_ranks };

class Error : public std::runtime_error {
 public:
  Error(Fault fault, const std::string& sentence, Reach reach = Reach::this_rank)
      : std::runtime_error(sentence), fault_(fault), reach_(reach) {}
  Fault fault() const { return fault_; }
  Reach reach() const { return reach_; }
  int exit_code() const { return static_cast<int>(fault_); }

 private:
  Fault fault_;
  Reach reach_;
};

/// Joins the parts with operator<<.
template <class... Parts>
std::string join_text(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

template <class... Parts>
[[noreturn]] void fail(Fault fault, const Parts&... parts) {
  throw Error(fault, join_text(parts...));
}

template <class... Parts>
void check(bool condition, Fault fault, const Parts&... parts) {
  if (!condition) [[unlikely]]
    fail(fault, parts...);
}

/// A check without a Fault guards an invariant of the program itself.
template <class... Parts>
void check(bool condition, const char* first, const Parts&... parts) {
  if (!condition) [[unlikely]]
    fail(Fault::internal, first, parts...);
}

}  // namespace conclave
