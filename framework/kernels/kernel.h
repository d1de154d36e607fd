// A Kernel is one computation of a back end, as an object that is called like a function. Its signature
// stands once, in kernels.h or in the header of its family. A back end puts a function behind it, and its
// work says what every back end has to do at least. While a profile is active, each call reports its time and
// its work.
#pragma once

#include <type_traits>
#include <utility>
#include <vector>

#include "framework/base/error.h"
#include "framework/device/profile.h"

namespace conclave {

/// A kernel without its signature.
class AnyKernel {
 public:
  explicit AnyKernel(const char* name) : name_(name) {}
  virtual ~AnyKernel() = default;
  AnyKernel(const AnyKernel&) = delete;
  AnyKernel& operator=(const AnyKernel&) = delete;

  const char* name() const { return name_; }
  virtual bool has_function() const = 0;
  virtual bool has_work() const = 0;
  /// Puts a function behind it that does nothing, where the kernel returns nothing.
  virtual void leave_out() = 0;

 private:
  const char* name_;
};

template <class Signature>
class Kernel;

template <class Result, class... Arguments>
class Kernel<Result(Arguments...)> final : public AnyKernel {
 public:
  using Function = Result (*)(Arguments...);
  /// Bytes that have to be read and written at least, and floating-point operations where the kernel is about
  /// these.
  using Work = Profile::Work (*)(Arguments...);

  /// Enters itself into the table that it is a member of.
  Kernel(std::vector<AnyKernel*>& table, const char* name) : AnyKernel(name) { table.push_back(this); }

  Kernel& operator=(Function behind) {
    function_ = behind;
    return *this;
  }
  Function function() const { return function_; }
  void set_work(Work work) { work_ = work; }

  bool has_function() const override { return function_ != nullptr; }
  bool has_work() const override { return work_ != nullptr; }
  void leave_out() override {
    if constexpr (std::is_void_v<Result>) function_ = [](Arguments...) {};
  }

  /// Fault::internal where the back end has no such kernel.
  Result operator()(Arguments... arguments) const {
    if (function_ == nullptr) [[unlikely]]
      fail(Fault::internal, "the kernel ", name(), " was called on a device whose back end lacks it");
    if (Profile::active() == nullptr) [[likely]]
      return function_(std::forward<Arguments>(arguments)...);
    const Report report{name(), work_ ? work_(arguments...) : Profile::Work{}};
    return function_(std::forward<Arguments>(arguments)...);
  }

 private:
  /// Where kernels are queued, the time is that of queueing.
  struct Report {
    const char* name;
    Profile::Work work;
    Profile::Clock::time_point begin = Profile::Clock::now();
    ~Report() { Profile::active()->add(Profile::Kind::kernel, name, begin, Profile::Clock::now(), work); }
  };

  Function function_ = nullptr;
  Work work_ = nullptr;
};

}  // namespace conclave
