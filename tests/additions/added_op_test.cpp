// An op with kernels of its own for CPUs and GPUs is new files and two lines in each of three existing ones.
// The kernels are in the table of every back end, the device code computes on the emulated device what the
// CPU does, and the gradient is right.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "framework/autograd/ops/soft_cap.h"
#include "framework/kernels/backends.h"
#include "framework/kernels/soft_cap.h"
#include "tests/framework/autograd/gradient_check.h"

namespace conclave::test {
namespace {
namespace fs = std::filesystem;

TEST(AddedOp, TouchesThreeExistingFiles) {
  std::ifstream patch(fs::path(CONCLAVE_ADDITION) / "existing.patch");
  ASSERT_TRUE(patch.is_open());
  std::vector<std::string> touched;
  int removed = 0;
  for (std::string line; std::getline(patch, line);) {
    if (line.starts_with("+++ ")) touched.push_back(line.substr(6));
    if (line.starts_with("-") && !line.starts_with("--- ")) ++removed;
  }
  EXPECT_EQ(touched, (std::vector<std::string>{"framework/kernels/cpu/cpu_kernels.cpp",
                                               "framework/kernels/cuda/device_kernels.cu",
                                               "framework/kernels/families.cpp"}));
  EXPECT_EQ(removed, 0);
}

TEST(AddedOp, ItsKernelsAreInEveryTable) {
  for (const Kernels* kernels : {&cpu_kernels(), &emulated_kernels(), &counting_kernels()})
    for (const char* name : {"soft_cap", "soft_cap_backward"}) {
      const auto& all = kernels->all();
      const auto found = std::find_if(all.begin(), all.end(), [&](const AnyKernel* kernel) {
        return std::string_view(kernel->name()) == name;
      });
      ASSERT_NE(found, all.end()) << name;
      EXPECT_TRUE((*found)->has_function()) << name;
      EXPECT_TRUE((*found)->has_work()) << name;
    }
}

TEST(AddedOp, ItsGradientIsRight) {
  const GradientErrors errors =
      check_gradient([](Tape& tape, const std::vector<Variable>& in) { return soft_cap(tape, in[0], 1.5); },
                     {normal_tensor("x", {5, 7}, 2)});
  EXPECT_LT(errors.derivative, 1e-7) << errors.where_derivative;
  EXPECT_LT(errors.accumulation, 1e-12) << errors.where_accumulation;
}

TEST(AddedOp, IsItsFormulaOnTheCpuAndAsDeviceCode) {
  constexpr std::int64_t count = 1000;
  constexpr double cap = 2;
  std::vector<float> x, dy;
  for (std::int64_t i = 0; i < count; ++i) {
    x.push_back(static_cast<float>(i - 500) / 64);
    dy.push_back(static_cast<float>(i % 7) - 3);
  }
  for (Device* device : {&cpu_device(), &emulated_device()}) {
    const Tensor values = Tensor::from(x, {count}, *device);
    Tape tape;
    const Gradient gradient = Gradient::of(values);
    const Variable y = soft_cap(tape, {values, gradient}, cap);
    const std::vector<float> got = y.value.to_host<float>();
    const Tensor dx = Tensor::empty({count}, DType::float32, *device);
    kernels_of(values).family<SoftCapKernels>().soft_cap_backward(y.value, cap,
                                                                  Tensor::from(dy, {count}, *device), dx);
    const std::vector<float> got_dx = dx.to_host<float>();
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double expected = cap * std::tanh(x[i] / cap), slope = 1 - std::pow(std::tanh(x[i] / cap), 2);
      ASSERT_NEAR(got[i], expected, 1e-6) << device->name() << " " << i;
      ASSERT_NEAR(got_dx[i], dy[i] * slope, 3e-6) << device->name() << " " << i;
    }
  }
}

}  // namespace
}  // namespace conclave::test
