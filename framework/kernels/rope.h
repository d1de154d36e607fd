// The kernels of rotary positions: a family with a header of its own.
#pragma once

#include "framework/kernels/kernels.h"
#include "framework/kernels/rope_frequencies.h"

namespace conclave {

enum class Rotation { forward, inverse };

struct RopeKernels {
  explicit RopeKernels(std::vector<AnyKernel*>& table) : rope(table, "rope") {
    rope.set_work([](const Tensor& x, const Tensor&, const RopeFrequencies&, std::int64_t, Rotation,
                     const Tensor& y) -> Profile::Work {
      return {static_cast<double>(x.bytes()) + static_cast<double>(y.bytes())};
    });
  }

  /// Rotates the two halves of the first rotary_width elements of each head by position * frequency, pair by
  /// pair, and hands the others on. Shapes: x, y [tokens, heads, head_width], positions
  /// int32 [tokens]; rotary_width is even and at most head_width. The inverse rotation is the transpose.
  Kernel<void(const Tensor& x, const Tensor& positions, const RopeFrequencies& frequencies,
              std::int64_t rotary_width, Rotation rotation, const Tensor& y)>
      rope;
};

/// Checks what every back end asks of the arguments before it computes.
inline void check_rope(const Tensor& x, const Tensor& positions, std::int64_t rotary_width, const Tensor& y) {
  check_tensor(positions, "rope", "positions", {x.dim(0)}, DType::int32);
  check_tensor(y, "rope", "y", x.shape(), x.dtype());
  check(rotary_width > 0 && rotary_width % 2 == 0 && rotary_width <= x.dim(2), "rope: a rotary width of ",
        rotary_width, " came for heads of ", x.dim(2));
}

}  // namespace conclave
