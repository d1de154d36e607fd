// These headers tell AddressSanitizer and ThreadSanitizer about emulated device memory and about the fibers
// that emulated threads run on. Without a sanitizer all of it is empty. No other place asks which build this
// is.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#include "framework/device/sanitizer_address.h"
#elif defined(__SANITIZE_THREAD__)
#include "framework/device/sanitizer_thread.h"
#else
#include "framework/device/sanitizer_none.h"
#endif
