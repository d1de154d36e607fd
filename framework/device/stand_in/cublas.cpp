// Products of the stand-in: bfloat16 becomes float32 first, sums are in float32, and a result in bfloat16 is
// rounded once.
#include "framework/device/stand_in/cublas.h"

#include <dnnl.h>

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "framework/base/bfloat16.h"
#include "framework/base/error.h"
#include "framework/device/emulated_memory.h"

namespace conclave::emulated {

struct CublasContext {
  cudaStream_t stream = nullptr;
};
struct CublasLtContext {};
struct CublasLtProduct {
  cublasOperation_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
};
struct CublasLtLayout {
  cudaDataType_t type;
  std::int64_t rows, columns, stride;
};
struct CublasLtPreference {
  std::size_t workspace = 0;
  std::uint32_t alignment[4] = {256, 256, 256, 256};
};

namespace {

struct Operand {
  const void* data;
  cudaDataType_t type;
  std::int64_t stride;
  cublasOperation_t operation = CUBLAS_OP_N;
};

std::size_t bytes_of(cudaDataType_t type) {
  return type == CUDA_R_16BF ? 2 : 4;
}

/// Columns first, `rows` of each; elements in between are left out.
std::vector<float> as_floats(const Operand& from, std::int64_t rows, std::int64_t columns) {
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  for (std::int64_t c = 0; c < columns; ++c)
    for (std::int64_t r = 0; r < rows; ++r)
      values[static_cast<std::size_t>(c * rows + r)] =
          from.type == CUDA_R_16BF ? to_float(static_cast<const BFloat16*>(from.data)[c * from.stride + r])
                                   : static_cast<const float*>(from.data)[c * from.stride + r];
  return values;
}

bool on_device(const void* begin, std::int64_t rows, std::int64_t columns, std::int64_t stride,
               cudaDataType_t type) {
  const std::int64_t elements = columns == 0 ? 0 : (columns - 1) * stride + rows;
  return is_emulated_memory(begin, static_cast<std::size_t>(elements) * bytes_of(type));
}

/// Columns first and dense. To oneDNN, which counts rows first, every matrix is its transpose.
void multiply_floats(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const std::vector<float>& a,
                     cublasOperation_t turn_a, const std::vector<float>& b, cublasOperation_t turn_b,
                     float beta, std::vector<float>& c) {
  if (k == 0) {
    for (float& value : c) value *= beta;
    return;
  }
  const bool a_turned = turn_a == CUBLAS_OP_T, b_turned = turn_b == CUBLAS_OP_T;
  const dnnl_status_t status =
      dnnl_sgemm(b_turned ? 'T' : 'N', a_turned ? 'T' : 'N', n, m, k, alpha, b.data(), b_turned ? n : k,
                 a.data(), a_turned ? k : m, beta, c.data(), m);
  check(status == dnnl_success, Fault::machine, "emulated: oneDNN's sgemm gave status ",
        static_cast<int>(status));
}

/// c [m, n] = alpha op(a) op(b) + beta c, columns first, at the end of the stream.
cublasStatus_t multiply(cudaStream_t stream, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
                        const Operand& a, const Operand& b, float beta, void* c, cudaDataType_t c_type,
                        std::int64_t c_stride) {
  if (m < 0 || n < 0 || k < 0) return CUBLAS_STATUS_INVALID_VALUE;
  if (a.type != b.type || (c_type != a.type && c_type != CUDA_R_32F)) return CUBLAS_STATUS_NOT_SUPPORTED;
  const std::int64_t a_rows = a.operation == CUBLAS_OP_N ? m : k, a_columns = m + k - a_rows,
                     b_rows = b.operation == CUBLAS_OP_N ? k : n, b_columns = k + n - b_rows;
  if (a.stride < std::max<std::int64_t>(1, a_rows) || b.stride < std::max<std::int64_t>(1, b_rows) ||
      c_stride < std::max<std::int64_t>(1, m))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
  if (!on_device(a.data, a_rows, a_columns, a.stride, a.type) ||
      !on_device(b.data, b_rows, b_columns, b.stride, b.type) || !on_device(c, m, n, c_stride, c_type))
    return CUBLAS_STATUS_INVALID_VALUE;
  run_on(stream, "product", [=] {
    const std::vector<float> left = as_floats(a, a_rows, a_columns), right = as_floats(b, b_rows, b_columns);
    std::vector<float> result(static_cast<std::size_t>(m * n));
    if (beta != 0) result = as_floats({c, c_type, c_stride}, m, n);
    multiply_floats(m, n, k, alpha, left, a.operation, right, b.operation, beta, result);
    for (std::int64_t column = 0; column < n; ++column)
      for (std::int64_t row = 0; row < m; ++row) {
        const float value = result[static_cast<std::size_t>(column * m + row)];
        if (c_type == CUDA_R_16BF)
          static_cast<BFloat16*>(c)[column * c_stride + row] = to_bfloat16(value);
        else
          static_cast<float*>(c)[column * c_stride + row] = value;
      }
  });
  return CUBLAS_STATUS_SUCCESS;
}

/// The product that an algorithm is for; another one must not be given it.
std::uint64_t name_of(const CublasLtProduct& product, std::initializer_list<const CublasLtLayout*> layouts) {
  std::uint64_t name = static_cast<std::uint64_t>(product.transpose_a) * 2 + product.transpose_b;
  for (const CublasLtLayout* layout : layouts)
    for (const std::int64_t number :
         {static_cast<std::int64_t>(layout->type), layout->rows, layout->columns, layout->stride})
      name = (name ^ static_cast<std::uint64_t>(number)) * 0x100000001B3u;  // FNV-1a by numbers
  return name;
}

bool is_aligned(const void* pointer, std::uint32_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

}  // namespace

const char* cublasGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS         ? "success"
         : status == CUBLAS_STATUS_INVALID_VALUE ? "an unsupported value or parameter was passed"
                                                 : "the functionality requested is not supported";
}

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  *handle = new CublasContext;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t, void* workspace, std::size_t bytes) {
  return is_emulated_memory(workspace, bytes) && is_aligned(workspace, 256) ? CUBLAS_STATUS_SUCCESS
                                                                            : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) {
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmEx_64(cublasHandle_t handle, cublasOperation_t transpose_a,
                               cublasOperation_t transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
                               const void* alpha, const void* a, cudaDataType_t a_type, std::int64_t a_stride,
                               const void* b, cudaDataType_t b_type, std::int64_t b_stride, const void* beta,
                               void* c, cudaDataType_t c_type, std::int64_t c_stride, cublasComputeType_t,
                               cublasGemmAlgo_t) {
  return multiply(handle->stream, m, n, k, *static_cast<const float*>(alpha),
                  {a, a_type, a_stride, transpose_a}, {b, b_type, b_stride, transpose_b},
                  *static_cast<const float*>(beta), c, c_type, c_stride);
}

cublasStatus_t cublasGemmGroupedBatchedEx_64(cublasHandle_t handle, const cublasOperation_t transpose_a[],
                                             const cublasOperation_t transpose_b[], const std::int64_t m[],
                                             const std::int64_t n[], const std::int64_t k[],
                                             const void* alpha, const void* const a[], cudaDataType_t a_type,
                                             const std::int64_t a_stride[], const void* const b[],
                                             cudaDataType_t b_type, const std::int64_t b_stride[],
                                             const void* beta, void* const c[], cudaDataType_t c_type,
                                             const std::int64_t c_stride[], std::int64_t groups,
                                             const std::int64_t group_size[], cublasComputeType_t) {
  if (a_type != b_type || a_type != c_type) return CUBLAS_STATUS_NOT_SUPPORTED;
  std::int64_t first = 0;
  for (std::int64_t group = 0; group < groups; first += group_size[group], ++group)
    for (std::int64_t i = first; i < first + group_size[group]; ++i) {
      if (!is_emulated_memory(a + i, sizeof(*a)) || !is_emulated_memory(b + i, sizeof(*b)) ||
          !is_emulated_memory(c + i, sizeof(*c)))
        return CUBLAS_STATUS_INVALID_VALUE;
      // Sizes are read now, pointers when the stream comes here.
      const Operand of_a{nullptr, a_type, a_stride[group], transpose_a[group]},
          of_b{nullptr, b_type, b_stride[group], transpose_b[group]};
      run_on(handle->stream, "",
             [=, m = m[group], n = n[group], k = k[group], alpha = static_cast<const float*>(alpha)[group],
              beta = static_cast<const float*>(beta)[group], c_stride = c_stride[group]] {
               Operand left = of_a, right = of_b;
               left.data = a[i], right.data = b[i];
               check(is_aligned(a[i], 16) && is_aligned(b[i], 16) && is_aligned(c[i], 16),
                     "emulated: a grouped product of ", m, " x ", n, " x ", k, " at a misaligned address");
               const cublasStatus_t status =
                   multiply(nullptr, m, n, k, alpha, left, right, beta, c[i], c_type, c_stride);
               check(status == CUBLAS_STATUS_SUCCESS, "emulated: a grouped product of ", m, " x ", n, " x ",
                     k, ": ", cublasGetStatusString(status));
             });
    }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new CublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t,
                                        cudaDataType_t scale_type) {
  if (scale_type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *made = new CublasLtProduct;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) {
  delete product;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              std::size_t bytes) {
  if (bytes != sizeof(cublasOperation_t)) return CUBLAS_STATUS_INVALID_VALUE;
  (attribute == CUBLASLT_MATMUL_DESC_TRANSA ? product->transpose_a : product->transpose_b) =
      *static_cast<const cublasOperation_t*>(value);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType_t type,
                                          std::uint64_t rows, std::uint64_t columns, std::int64_t stride) {
  *made =
      new CublasLtLayout{type, static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns), stride};
  return rows == 0 || columns == 0 ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  *made = new CublasLtPreference;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, std::size_t bytes) {
  if (bytes != (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? sizeof(std::size_t) : 4))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
    preference->workspace = *static_cast<const std::size_t*>(value);
  else if (attribute >= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES)
    preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES] =
        *static_cast<const std::uint32_t*>(value);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t found[], int* count) {
  *count = wanted > 0 ? 1 : 0;
  if (wanted == 0) return CUBLAS_STATUS_SUCCESS;
  found[0].algo.product = name_of(*product, {a, b, c, d});
  std::copy_n(preference->alignment, 4, found[0].algo.alignment);
  found[0].workspaceSize =
      std::min<std::size_t>(preference->workspace, 1024);  // so that somebody must bring it
  found[0].state = CUBLAS_STATUS_SUCCESS;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream) {
  const void* const matrices[] = {a, b, c, d};
  for (int i = 0; i < 4; ++i)
    if (!is_aligned(matrices[i], algorithm->alignment[i])) return CUBLAS_STATUS_INVALID_VALUE;
  if (algorithm->product != name_of(*product, {a_layout, b_layout, c_layout, d_layout}) || c != d ||
      workspace_bytes < 1024 || !is_emulated_memory(workspace, workspace_bytes) ||
      !is_aligned(workspace, 256))
    return CUBLAS_STATUS_INVALID_VALUE;
  const bool a_turned = product->transpose_a == CUBLAS_OP_T, b_turned = product->transpose_b == CUBLAS_OP_T;
  const std::int64_t m = a_turned ? a_layout->columns : a_layout->rows,
                     k = a_turned ? a_layout->rows : a_layout->columns,
                     n = b_turned ? b_layout->rows : b_layout->columns;
  if ((b_turned ? b_layout->columns : b_layout->rows) != k || d_layout->rows != m || d_layout->columns != n)
    return CUBLAS_STATUS_INVALID_VALUE;
  return multiply(stream, m, n, k, *static_cast<const float*>(alpha),
                  {a, a_layout->type, a_layout->stride, product->transpose_a},
                  {b, b_layout->type, b_layout->stride, product->transpose_b},
                  *static_cast<const float*>(beta), d, d_layout->type, d_layout->stride);
}

}  // namespace conclave::emulated
