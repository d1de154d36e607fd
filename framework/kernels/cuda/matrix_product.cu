// Matrix products through cuBLASLt: float32 without TF32, since nothing is rounded that the recipe did not
// ask for, and bfloat16 with sums in float32, split ones included. The algorithm of each shape is asked for
// once.
#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "framework/kernels/cuda/device_kernels.h"
#include "framework/kernels/cuda/matrix_library.h"

namespace conclave::DIALECT {
namespace {

/// All that decides how a product is computed. Alignments are in bytes: a, b, c.
struct Product {
  std::int64_t m, n, k;
  Transpose transpose_a, transpose_b;
  DType inputs, result;
  std::array<std::uint32_t, 3> alignments;
  auto operator<=>(const Product&) const = default;
};

template <auto destroy>
struct Destroy {
  template <class T>
  void operator()(T* description) const {
    destroy(description);
  }
};
template <class Pointer, auto destroy>
using Description = std::unique_ptr<std::remove_pointer_t<Pointer>, Destroy<destroy>>;
using Layout = Description<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;

/// A row-major matrix, which to cuBLAS is its transpose.
Layout layout_of(DType dtype, std::int64_t rows, std::int64_t columns) {
  cublasLtMatrixLayout_t made = nullptr;
  check_cublas(cublasLtMatrixLayoutCreate(&made, library_type(dtype), static_cast<std::uint64_t>(columns),
                                          static_cast<std::uint64_t>(rows), columns),
               "cublasLtMatrixLayoutCreate");
  return Layout(made);
}

/// c^T = op(b)^T op(a)^T, described to cuBLASLt: its first matrix is b.
class Plan {
 public:
  explicit Plan(const Product& p)
      : a_(p.transpose_a == Transpose::no ? layout_of(p.inputs, p.m, p.k) : layout_of(p.inputs, p.k, p.m)),
        b_(p.transpose_b == Transpose::no ? layout_of(p.inputs, p.k, p.n) : layout_of(p.inputs, p.n, p.k)),
        c_(layout_of(p.result, p.m, p.n)) {
    cublasLtMatmulDesc_t product = nullptr;
    check_cublas(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "cublasLtMatmulDescCreate");
    product_.reset(product);
    set(CUBLASLT_MATMUL_DESC_TRANSA, operation(p.transpose_b));
    set(CUBLASLT_MATMUL_DESC_TRANSB, operation(p.transpose_a));
    cublasLtMatmulPreference_t made = nullptr;
    check_cublas(cublasLtMatmulPreferenceCreate(&made), "cublasLtMatmulPreferenceCreate");
    const Description<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy> preference(made);
    prefer(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, library_workspace);
    // Parts of a sum that was split are added in float32, never in the type of the result.
    prefer(made, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p.alignments[1]);
    prefer(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p.alignments[0]);
    prefer(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p.alignments[2]);
    prefer(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p.alignments[2]);
    int found = 0;
    check_cublas(cublasLtMatmulAlgoGetHeuristic(light_library(), product, b_.get(), a_.get(), c_.get(),
                                                c_.get(), made, 1, &choice_, &found),
                 "cublasLtMatmulAlgoGetHeuristic");
    check(found == 1, Fault::machine, "cublas: no algorithm for a product of ", p.m, " x ", p.n, " x ", p.k,
          " in ", name_of(p.inputs));
  }

  void run(Device& device, const void* a, const void* b, void* c, Write write) const {
    const float one = 1, beta = write == Write::accumulate ? 1.0f : 0.0f;
    const auto workspace = device.allocate(choice_.workspaceSize);
    check_cublas(cublasLtMatmul(light_library(), product_.get(), &one, b, b_.get(), a, a_.get(), &beta, c,
                                c_.get(), c, c_.get(), &choice_.algo, workspace->data(),
                                choice_.workspaceSize, static_cast<Stream>(device.stream())),
                 "cublasLtMatmul");
  }

 private:
  void set(cublasLtMatmulDescAttributes_t attribute, cublasOperation_t value) const {
    check_cublas(cublasLtMatmulDescSetAttribute(product_.get(), attribute, &value, sizeof(value)),
                 "cublasLtMatmulDescSetAttribute");
  }
  template <class T>
  static void prefer(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
                     T value) {
    check_cublas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
                 "cublasLtMatmulPreferenceSetAttribute");
  }

  Layout a_, b_, c_;
  Description<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> product_;
  cublasLtMatmulHeuristicResult_t choice_{};
};

/// The largest power of two, up to 256, that divides the address.
std::uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer) | 256u;
  return static_cast<std::uint32_t>(address & (~address + 1));
}

const Plan& plan_of(const Product& product) {
  static std::mutex mutex;
  static auto* plans = new std::map<Product, Plan>;  // never destroyed: cuBLAS may be gone at exit
  const std::lock_guard lock(mutex);
  const auto known = plans->find(product);
  return known != plans->end() ? known->second : plans->try_emplace(product, product).first->second;
}

void gemm(const Tensor& a, Transpose transpose_a, const Tensor& b, Transpose transpose_b, const Tensor& c,
          Write write) {
  const std::int64_t m = c.dim(0), n = c.dim(1), k = transpose_a == Transpose::no ? a.dim(1) : a.dim(0);
  check_tensor(a, "gemm", "a", transpose_a == Transpose::no ? Shape{m, k} : Shape{k, m}, a.dtype());
  check_tensor(b, "gemm", "b", transpose_b == Transpose::no ? Shape{k, n} : Shape{n, k}, a.dtype());
  check(c.dtype() == a.dtype() || c.dtype() == sum_type(a.dtype()), "gemm: c of ", name_of(c.dtype()),
        " came for a product of ", name_of(a.dtype()));
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (write == Write::overwrite) c.fill_zero();
    return;
  }
  plan_of({m,
           n,
           k,
           transpose_a,
           transpose_b,
           a.dtype(),
           c.dtype(),
           {alignment_of(a.raw()), alignment_of(b.raw()), alignment_of(c.raw())}})
      .run(c.device(), a.raw(), b.raw(), c.raw(), write);
}

}  // namespace

void put_matrix_product(Kernels& kernels) {
  kernels.gemm = gemm;
}

}  // namespace conclave::DIALECT
