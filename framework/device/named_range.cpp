#include "framework/device/named_range.h"

namespace conclave {
namespace {

thread_local const char* innermost = nullptr;

}  // namespace

NamedRange::NamedRange(const char* name) : outer_(innermost) {
  innermost = name;
  tell_profiler_begin(name);
}

NamedRange::~NamedRange() {
  tell_profiler_end();
  innermost = outer_;
}

const char* current_range() {
  return innermost;
}

}  // namespace conclave
