// The products of all experts in one call of cuBLAS. It wants row counts on the host, which RowOffsets brings
// without another wait, and pointers on the device, which a kernel writes there. What that call does not
// take, results of another type than the inputs or rows that are not a multiple of 16 bytes, is one call per
// expert.
#include "framework/kernels/cuda/grouped_product.cuh"

#include <vector>

#include "framework/kernels/cuda/device_kernels.h"
#include "framework/kernels/cuda/matrix_library.h"

namespace conclave::DIALECT {
namespace {

/// Either m, the rows of c, or k, the length of the sums, varies between experts.
struct GroupedProduct {
  const RowOffsets& offsets;
  const Tensor &a, &b, &c;
  ExpertMatrix of_a, of_b, of_c;
  Transpose transpose_a, transpose_b;
  std::int64_t m, n, k;  // 0: the rows of the expert
  Write write;
};

std::int64_t bytes_of(const Tensor& tensor, std::int64_t elements) {
  return elements * static_cast<std::int64_t>(element_bytes(tensor.dtype()));
}

/// Row-major c = op(a) op(b) is c^T = op(b)^T op(a)^T to cuBLAS: its first matrix is b.
void multiply_groups(const GroupedProduct& p) {
  const std::vector<std::int64_t> offsets = p.offsets.on_host();
  std::vector<std::int64_t> expert, m, n, k, a_stride, b_stride;
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
    const std::int64_t rows = offsets[e + 1] - offsets[e];
    if (rows == 0) continue;
    expert.push_back(static_cast<std::int64_t>(e));
    m.push_back(p.m > 0 ? p.m : rows), n.push_back(p.n), k.push_back(p.k > 0 ? p.k : rows);
    a_stride.push_back(p.transpose_a == Transpose::no ? k.back() : m.back());
    b_stride.push_back(p.transpose_b == Transpose::no ? n.back() : k.back());
  }
  if (expert.empty() || p.c.elements() == 0) return;
  const cublasHandle_t handle = library_on(p.c.device());
  const cudaDataType_t type = library_type(p.a.dtype()), c_type = library_type(p.c.dtype());
  const float one = 1, beta = p.write == Write::accumulate ? 1.0f : 0.0f;

  bool fits = type == c_type;
  for (const ExpertMatrix& matrix : {p.of_a, p.of_b, p.of_c})
    fits = fits && reinterpret_cast<std::uintptr_t>(matrix.data) % 16 == 0 && matrix.row % 16 == 0 &&
           matrix.expert % 16 == 0;
  if (!fits) {
    for (std::size_t i = 0; i < expert.size(); ++i) {
      const std::int64_t e = expert[i], offset = offsets[static_cast<std::size_t>(e)];
      check_cublas(cublasGemmEx_64(handle, operation(p.transpose_b), operation(p.transpose_a), n[i], m[i],
                                   k[i], &one, p.of_b.of(e, offset), type, b_stride[i], p.of_a.of(e, offset),
                                   type, a_stride[i], &beta, const_cast<void*>(p.of_c.of(e, offset)), c_type,
                                   n[i], CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                   "cublasGemmEx");
    }
    return;
  }
  const auto live = static_cast<std::int64_t>(expert.size());
  const Tensor pointers = Tensor::empty({3, live}, DType::int64, p.c.device());
  auto** const first = static_cast<const void**>(pointers.raw());
  launch({.blocks = 1, .stream = p.c.device().stream()}, expert_pointers_kernel,
         p.offsets.data<std::int64_t>(), static_cast<std::int64_t>(offsets.size()) - 1, p.of_a, p.of_b,
         p.of_c, live, first);
  const std::vector<cublasOperation_t> turn_a(expert.size(), operation(p.transpose_a)),
      turn_b(expert.size(), operation(p.transpose_b));
  const std::vector<float> ones(expert.size(), one), betas(expert.size(), beta);
  const std::vector<std::int64_t> one_each(expert.size(), 1);
  check_cublas(
      cublasGemmGroupedBatchedEx_64(handle, turn_b.data(), turn_a.data(), n.data(), m.data(), k.data(),
                                    ones.data(), first + live, type, b_stride.data(), first, type,
                                    a_stride.data(), betas.data(), const_cast<void* const*>(first + 2 * live),
                                    c_type, n.data(), live, one_each.data(), CUBLAS_COMPUTE_32F),
      "cublasGemmGroupedBatchedEx");
}

void grouped_linear(const Tensor& x, const Tensor& weight, const RowOffsets& offsets, const Tensor& y) {
  const std::int64_t out = weight.dim(1), in = weight.dim(2);
  multiply_groups({offsets,
                   x,
                   weight,
                   y,
                   {x.raw(), bytes_of(x, in), 0},
                   {weight.raw(), 0, bytes_of(weight, out * in)},
                   {y.raw(), bytes_of(y, out), 0},
                   Transpose::no,
                   Transpose::yes,
                   0,
                   out,
                   in,
                   Write::overwrite});
}

void grouped_linear_dx(const Tensor& dy, const Tensor& weight, const RowOffsets& offsets, const Tensor& dx,
                       Write write) {
  const std::int64_t out = weight.dim(1), in = weight.dim(2);
  multiply_groups({offsets,
                   dy,
                   weight,
                   dx,
                   {dy.raw(), bytes_of(dy, out), 0},
                   {weight.raw(), 0, bytes_of(weight, out * in)},
                   {dx.raw(), bytes_of(dx, in), 0},
                   Transpose::no,
                   Transpose::no,
                   0,
                   in,
                   out,
                   write});
}

void grouped_linear_dweight(const Tensor& dy, const Tensor& x, const RowOffsets& offsets,
                            const Tensor& dweight, Write write) {
  const std::int64_t out = dweight.dim(1), in = dweight.dim(2);
  const std::vector<std::int64_t> offset = offsets.on_host();
  for (std::size_t e = 0; e + 1 < offset.size(); ++e) {
    const auto expert = static_cast<std::int64_t>(e);
    if (offset[e + 1] == offset[e] && write == Write::overwrite)
      dweight.slice(expert, expert + 1).fill_zero();
  }
  multiply_groups({offsets,
                   dy,
                   x,
                   dweight,
                   {dy.raw(), bytes_of(dy, out), 0},
                   {x.raw(), bytes_of(x, in), 0},
                   {dweight.raw(), 0, bytes_of(dweight, out * in)},
                   Transpose::yes,
                   Transpose::no,
                   out,
                   in,
                   0,
                   write});
}

}  // namespace

void put_grouped_product(Kernels& kernels) {
  kernels.grouped_linear = grouped_linear;
  kernels.grouped_linear_dx = grouped_linear_dx;
  kernels.grouped_linear_dweight = grouped_linear_dweight;
}

}  // namespace conclave::DIALECT
