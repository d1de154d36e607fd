// What every backend's rope() asks of its arguments before it computes; shapes are in kernels.h.
#pragma once

#include "framework/kernels/kernels.h"

namespace conclave {

inline void check_rope(const Tensor& x, const Tensor& positions, std::int64_t rotary_width, const Tensor& y) {
  check_tensor(positions, "rope", "positions", {x.dim(0)}, DType::int32);
  check_tensor(y, "rope", "y", x.shape(), x.dtype());
  check(rotary_width > 0 && rotary_width % 2 == 0 && rotary_width <= x.dim(2), "rope: a rotary width of ",
        rotary_width, " came for heads of ", x.dim(2));
}

}  // namespace conclave
