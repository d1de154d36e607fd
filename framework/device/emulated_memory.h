// The memory of the emulated device: one range of addresses that may be touched only while an EmulatedAccess
// exists. Host code that follows a device pointer therefore faults at once, as it would with a real GPU.
#pragma once

#include <cstddef>

namespace conclave {

/// Opens device memory for as long as it lives. Kernels, copies and calls of the stand-ins for CUDA's
/// libraries hold one. Accesses may be nested, and held by several threads.
class EmulatedAccess {
 public:
  EmulatedAccess();
  ~EmulatedAccess();
  EmulatedAccess(const EmulatedAccess&) = delete;
  EmulatedAccess& operator=(const EmulatedAccess&) = delete;
};

/// A new block, followed by bytes that belong to no block; nullptr when the range is used up. It may be
/// called only while access is open.
void* new_emulated_block(std::size_t bytes);

/// True where all of the bytes lie in device memory; none of them needs to be a buffer's.
bool is_emulated_memory(const void* begin, std::size_t bytes);

/// From now on a fault inside device memory is explained in a sentence on stderr before it ends the process.
void explain_emulated_faults();

}  // namespace conclave
