// Exceptions that Conclave did not throw become the Error that they mean. Either the machine has no memory or
// no thread left, or there is a bug.
#pragma once

#include <exception>

#include "framework/base/error.h"

namespace conclave {

/// The Error that the exception means; an Error stays what it is. Where no memory is left, this function
/// needs none. It then frees a small reserve, so that the error can still be reported.
Error error_of(const std::exception_ptr& thrown);

}  // namespace conclave
