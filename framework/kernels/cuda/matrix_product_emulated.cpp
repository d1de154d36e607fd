// Matrix products of the emulated device: the CPU's, let into device memory. They stand in for cuBLAS, whose
// inside is not ours to test.
#include "framework/device/runtime.h"
#include "framework/kernels/backends.h"
#include "framework/kernels/cuda/device_kernels.h"

namespace conclave::emulated {

void DeviceKernels::gemm(const Tensor& a, Transpose transpose_a, const Tensor& b, Transpose transpose_b,
                         const Tensor& c, Write write) const {
  run_on(static_cast<cudaStream_t>(c.device().stream()), "gemm",
         [=] { cpu_kernels().gemm(a, transpose_a, b, transpose_b, c, write); });
}

void DeviceKernels::grouped_linear(const Tensor& x, const Tensor& weight, const Tensor& offsets,
                                   const Tensor& y) const {
  run_on(static_cast<cudaStream_t>(y.device().stream()), "grouped_linear",
         [=] { cpu_kernels().grouped_linear(x, weight, offsets, y); });
}

void DeviceKernels::grouped_linear_dx(const Tensor& dy, const Tensor& weight, const Tensor& offsets,
                                      const Tensor& dx, Write write) const {
  run_on(static_cast<cudaStream_t>(dx.device().stream()), "grouped_linear_dx",
         [=] { cpu_kernels().grouped_linear_dx(dy, weight, offsets, dx, write); });
}

void DeviceKernels::grouped_linear_dweight(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                                           const Tensor& dweight, Write write) const {
  run_on(static_cast<cudaStream_t>(dweight.device().stream()), "grouped_linear_dweight",
         [=] { cpu_kernels().grouped_linear_dweight(dy, x, offsets, dweight, write); });
}

}  // namespace conclave::emulated

namespace conclave {

const Kernels& emulated_kernels() {
  static const emulated::DeviceKernels kernels;
  return kernels;
}

}  // namespace conclave
