#include "framework/base/total_order.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace conclave {
namespace {

TEST(TotalOrder, HasAPlaceForEveryDouble) {
  using Limits = std::numeric_limits<double>;
  const std::vector<double> ascending{-Limits::quiet_NaN(),
                                      -Limits::infinity(),
                                      Limits::lowest(),
                                      -1,
                                      -Limits::min(),
                                      -Limits::denorm_min(),
                                      -0.0,
                                      0.0,
                                      Limits::denorm_min(),
                                      Limits::min(),
                                      1,
                                      Limits::max(),
                                      Limits::infinity(),
                                      Limits::quiet_NaN()};
  for (std::size_t i = 0; i < ascending.size(); ++i)
    for (std::size_t j = 0; j < ascending.size(); ++j) {
      const auto order = total_order(ascending[i], ascending[j]);
      EXPECT_EQ(order < 0, i < j) << ascending[i] << " and " << ascending[j];
      EXPECT_EQ(order == 0, i == j) << ascending[i] << " and " << ascending[j];
    }
}

}  // namespace
}  // namespace conclave
