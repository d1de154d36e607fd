// Processors without AMX: nobody comes to these products.
#include "framework/kernels/cpu/tile_product.h"

namespace conclave::cpu {

bool has_bfloat16_tiles() {
  return false;
}

std::string why_no_tiles() {
  return "this processor has no AMX";
}

void TileMatrix::pack(std::int64_t, std::int64_t, const Matrix<BFloat16>&) {}

template <class C>
void multiply_on_tiles(std::int64_t, const Matrix<BFloat16>&, const TileMatrix&, std::int64_t, std::int64_t,
                       std::int64_t, std::int64_t, float, C*, std::int64_t) {
  fail(Fault::internal, "multiply_on_tiles: this processor has no AMX");
}

template <class C>
void multiply_on_tiles(std::int64_t, std::int64_t, std::int64_t, const Matrix<BFloat16>&,
                       const Matrix<BFloat16>&, float, C*, std::int64_t) {
  fail(Fault::internal, "multiply_on_tiles: this processor has no AMX");
}

template void multiply_on_tiles(std::int64_t, const Matrix<BFloat16>&, const TileMatrix&, std::int64_t,
                                std::int64_t, std::int64_t, std::int64_t, float, float*, std::int64_t);
template void multiply_on_tiles(std::int64_t, const Matrix<BFloat16>&, const TileMatrix&, std::int64_t,
                                std::int64_t, std::int64_t, std::int64_t, float, BFloat16*, std::int64_t);
template void multiply_on_tiles(std::int64_t, std::int64_t, std::int64_t, const Matrix<BFloat16>&,
                                const Matrix<BFloat16>&, float, float*, std::int64_t);
template void multiply_on_tiles(std::int64_t, std::int64_t, std::int64_t, const Matrix<BFloat16>&,
                                const Matrix<BFloat16>&, float, BFloat16*, std::int64_t);

}  // namespace conclave::cpu
