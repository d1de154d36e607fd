// Exceptions that Conclave did not throw, as the Error that they mean: the machine has no memory or no thread
// left, or there is a mistake somewhere.
#pragma once

#include <exception>

#include "framework/base/error.h"

namespace conclave {

/// An Error stays what it is. Where there is no memory left, this needs none, and frees a little that was
/// kept for what is said afterwards.
Error error_of(const std::exception_ptr& thrown);

}  // namespace conclave
