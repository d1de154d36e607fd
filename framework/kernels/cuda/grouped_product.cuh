// Where the matrices of each expert's product begin, written by the device from the row counts that it has.
#pragma once

#include "framework/kernels/cuda/storage.cuh"

namespace conclave::DIALECT {

/// The matrix of expert e begins `row * offsets[e] + expert * e` bytes after data.
struct ExpertMatrix {
  const void* data;
  std::int64_t row, expert;

  HOST_DEVICE const void* of(std::int64_t e, std::int64_t offset) const {
    return static_cast<const char*>(data) + row * offset + expert * e;
  }
};

/// pointers [3, live]: the matrices of the experts that have rows, in their order. One block.
KERNEL expert_pointers_kernel(const std::int64_t* offsets, std::int64_t experts, ExpertMatrix a,
                              ExpertMatrix b, ExpertMatrix c, std::int64_t live, const void** pointers) {
  for (std::int64_t e = thread_index(); e < experts; e += block_size()) {
    if (offsets[e + 1] == offsets[e]) continue;
    std::int64_t place = 0;
    for (std::int64_t before = 0; before < e; ++before) place += offsets[before + 1] > offsets[before];
    pointers[place] = a.of(e, offsets[e]);
    pointers[live + place] = b.of(e, offsets[e]);
    pointers[2 * live + place] = c.of(e, offsets[e]);
  }
}

}  // namespace conclave::DIALECT
