// The function that libFuzzer calls: one program per entry, CONCLAVE_FUZZ_ENTRY names it. An exception that
// leaves the entry ends the program, which libFuzzer reports as a crash and keeps the input of.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/entries.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  conclave::fuzz::CONCLAVE_FUZZ_ENTRY({reinterpret_cast<const char*>(data), size});
  return 0;
}
