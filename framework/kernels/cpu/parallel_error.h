// An exception must not leave an OpenMP region: it would end the process without a word. ParallelError keeps
// the first one that a thread meets and throws it again after the region.
#pragma once

#include <exception>
#include <mutex>

namespace conclave::cpu {

class ParallelError {
 public:
  template <class Action>
  void guard(Action&& action) noexcept {
    try {
      action();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!first_) first_ = std::current_exception();
    }
  }
  void rethrow() const {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
};

}  // namespace conclave::cpu
