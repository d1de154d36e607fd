// Gradient: where contributions gather, who owns the memory, and the misuse it refuses.
#include <gtest/gtest.h>

#include <vector>

#include "framework/autograd/tape.h"
#include "tests/framework/autograd/gradient_check.h"

namespace conclave::test {
namespace {

std::vector<double> values_of(const Tensor& tensor) {
  return tensor.to_host<double>();
}

TEST(Gradient, FirstContributionIsKeptAndLaterOnesAreAdded) {
  const Tensor value = normal_tensor("v", {2, 2}), first = normal_tensor("a", {2, 2});
  const std::vector<double> a = values_of(first), b = values_of(normal_tensor("b", {2, 2}));
  const Gradient gradient = Gradient::of(value);
  gradient.add(first);
  EXPECT_EQ(gradient.target().write, Write::accumulate);
  gradient.add(normal_tensor("b", {2, 2}));
  const Tensor sum = gradient.take();
  EXPECT_EQ(sum.raw(), first.raw());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(values_of(sum)[i], a[i] + b[i]);
  for (const double nothing : values_of(gradient.take())) EXPECT_EQ(nothing, 0);
}

TEST(Gradient, StorageKeepsItsPlaceAndClearStartsAnew) {
  const Tensor storage = normal_tensor("garbage", {3});
  const Gradient gradient = Gradient::stored_in(storage);
  EXPECT_EQ(gradient.target().write, Write::overwrite);
  gradient.clear();
  gradient.add(normal_tensor("a", {3}));
  EXPECT_EQ(gradient.finished().raw(), storage.raw());
  EXPECT_EQ(values_of(storage), values_of(normal_tensor("a", {3})));
  gradient.clear();
  EXPECT_EQ(values_of(gradient.finished()), (std::vector<double>{0, 0, 0}));
}

TEST(Gradient, RefusesMisuse) {
  const Tensor value = normal_tensor("v", {2, 2});
  EXPECT_THROW(Gradient().target(), Error);
  EXPECT_THROW(Gradient::of(value).finished(), Error);
  EXPECT_THROW(Gradient::stored_in(value).take(), Error);
  EXPECT_THROW(Gradient::of(value).add(normal_tensor("a", {4})), Error);
  EXPECT_THROW(Gradient().when_complete([] {}), Error);
  EXPECT_NO_THROW(Gradient().add(value));
  Tape tape;
  EXPECT_THROW(tape.backward(tape.output(value)), Error);
}

}  // namespace
}  // namespace conclave::test
