// Every back end has every kernel, and a kernel that one lacks says so by its name.
#include <gtest/gtest.h>

#include <algorithm>

#include "framework/base/error.h"
#include "framework/kernels/backends.h"
#include "framework/kernels/cpu/cpu_kernels.h"

namespace conclave {
namespace {

std::vector<std::string> missing_in(const Kernels& kernels) {
  std::vector<std::string> names;
  for (const AnyKernel* kernel : kernels.all())
    if (!kernel->has_function()) names.emplace_back(kernel->name());
  return names;
}

TEST(KernelTable, EveryBackEndHasEveryKernel) {
  EXPECT_EQ(missing_in(cpu_kernels()), std::vector<std::string>());
  EXPECT_EQ(missing_in(emulated_kernels()), std::vector<std::string>());
  EXPECT_EQ(missing_in(counting_kernels()), std::vector<std::string>());
}

TEST(KernelTable, EveryKernelSaysWhatItHasToDo) {
  EXPECT_GT(cpu_kernels().all().size(), 30u);
  for (const AnyKernel* kernel : cpu_kernels().all()) EXPECT_TRUE(kernel->has_work()) << kernel->name();
}

TEST(KernelTable, AKernelThatIsMissingIsNamed) {
  const Kernels kernels({cpu::put_rope});
  const std::vector<std::string> missing = missing_in(kernels);
  EXPECT_EQ(missing.size() + 1, kernels.all().size());
  EXPECT_EQ(std::count(missing.begin(), missing.end(), "rope"), 0);
  const Tensor x = Tensor::zeros({1}, DType::float32);
  try {
    kernels.add(x, x, x);
    FAIL() << "a kernel that is not there was called";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::internal);
    EXPECT_NE(std::string(error.what()).find("the kernel add "), std::string::npos) << error.what();
  }
}

TEST(KernelTable, AKernelReportsToTheProfileThatIsActive) {
  const Tensor x = Tensor::zeros({4}, DType::float32);
  Profile profile;
  {
    const Profile::Recording recording(profile);
    cpu_kernels().add(x, x, x);
  }
  cpu_kernels().add(x, x, x);  // not recorded
  ASSERT_EQ(profile.sums().size(), 1u);
  const auto& [key, sum] = *profile.sums().begin();
  EXPECT_EQ(key.what, "add");
  EXPECT_EQ(sum.calls, 1);
  EXPECT_EQ(sum.bytes, 3 * 16);
}

}  // namespace
}  // namespace conclave
