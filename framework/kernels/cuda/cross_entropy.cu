#include "framework/kernels/cuda/cross_entropy.cuh"

#include "framework/kernels/cuda/device_kernels.h"

namespace conclave::DIALECT {

namespace {

void cross_entropy_statistics(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                              const Tensor& statistics) {
  const std::int64_t rows = logits.dim(0), columns = logits.dim(1);
  check_tensor(targets, "cross_entropy_statistics", "targets", {rows}, DType::int32);
  check_tensor(statistics, "cross_entropy_statistics", "statistics", {rows, 3}, DType::float64);
  launch({.blocks = rows, .stream = logits.device().stream()}, cross_entropy_statistics_kernel,
         check_float32("cross_entropy_statistics", logits), targets.data<std::int32_t>(), first_id, columns,
         statistics.data<double>());
}

void cross_entropy_losses(const Tensor& statistics, const Tensor& targets, std::int64_t vocabulary,
                          const Tensor& log_sum_exp, const Tensor& sums) {
  const std::int64_t parts = statistics.dim(0), rows = statistics.dim(1);
  check_tensor(statistics, "cross_entropy_losses", "statistics", {parts, rows, 3}, DType::float64);
  check_tensor(log_sum_exp, "cross_entropy_losses", "log_sum_exp", {rows}, DType::float64);
  check_tensor(sums, "cross_entropy_losses", "sums", {2}, DType::float64);
  launch({.blocks = 1, .stream = statistics.device().stream()}, cross_entropy_losses_kernel,
         statistics.data<double>(), targets.data<std::int32_t>(), parts, rows, vocabulary,
         log_sum_exp.data<double>(), sums.data<double>());
}

void cross_entropy_gradient(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                            const Tensor& log_sum_exp, double loss_scale, double z_scale) {
  const std::int64_t rows = logits.dim(0), columns = logits.dim(1);
  check_tensor(log_sum_exp, "cross_entropy_gradient", "log_sum_exp", {rows}, DType::float64);
  check_float32("cross_entropy_gradient", logits);
  launch({.blocks = rows, .stream = logits.device().stream()}, cross_entropy_gradient_kernel,
         logits.data<float>(), targets.data<std::int32_t>(), first_id, log_sum_exp.data<double>(), columns,
         loss_scale, z_scale);
}

}  // namespace

void put_cross_entropy(Kernels& kernels) {
  kernels.cross_entropy_statistics = cross_entropy_statistics;
  kernels.cross_entropy_losses = cross_entropy_losses;
  kernels.cross_entropy_gradient = cross_entropy_gradient;
}

}  // namespace conclave::DIALECT
