// The global batch of each step of a run that begins with a small one.
#include "framework/data/batch_ramp.h"

#include <gtest/gtest.h>

namespace conclave {
namespace {

TEST(BatchRamp, GrowsInStepsUntilItIsTheRecipes) {
  EXPECT_EQ(batch_size_at({}, 32, 0), 32);
  const BatchRampRecipe ramp{.start_batch_size = 8, .increment = 8, .steps_per_increment = 10};
  EXPECT_EQ(batch_size_at(ramp, 32, 9), 8);
  EXPECT_EQ(batch_size_at(ramp, 32, 10), 16);
  EXPECT_EQ(batch_size_at(ramp, 32, 1000), 32);
}

}  // namespace
}  // namespace conclave
