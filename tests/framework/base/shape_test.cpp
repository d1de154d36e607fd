// Shape arithmetic and its errors, and the one way to fail.
#include "framework/base/shape.h"

#include <gtest/gtest.h>

#include <sstream>

namespace conclave {
namespace {

TEST(Shape, CountsElements) {
  EXPECT_EQ(Shape{}.elements(), 1);
  EXPECT_EQ(Shape{}.dims(), 0);
  EXPECT_EQ((Shape{2, 3, 5}.elements()), 30);
  EXPECT_EQ((Shape{2, 3, 5}.row_elements()), 15);
  EXPECT_EQ((Shape{7}.row_elements()), 1);
  EXPECT_EQ((Shape{0, 3}.elements()), 0);
  EXPECT_EQ((Shape{0, 3}.row_elements()), 3);
}

TEST(Shape, ComparesAndChangesOneDim) {
  EXPECT_EQ((Shape{2, 3}.with(0, 9)), (Shape{9, 3}));
  EXPECT_FALSE((Shape{2, 3}) == (Shape{2, 3, 1}));
  EXPECT_FALSE((Shape{2, 3}) == (Shape{3, 2}));
  std::ostringstream text;
  text << Shape{2, 3} << Shape{};
  EXPECT_EQ(text.str(), "[2, 3][]");
}

TEST(Shape, RefusesWhatItCannotHold) {
  EXPECT_THROW((Shape{1, 2, 3, 4, 5}), Error);
  EXPECT_THROW((Shape{2, -1}), Error);
  Shape full{1, 2, 3, 4};
  EXPECT_THROW(full.push_back(5), Error);
}

TEST(Error, CarriesItsSentenceAndExitCode) {
  try {
    check(2 < 1, Fault::data, "tokens.bin: ", 3, " bytes came, expected ", 4);
    FAIL() << "check let a false condition pass";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "tokens.bin: 3 bytes came, expected 4");
    EXPECT_EQ(error.exit_code(), 3);
    EXPECT_EQ(error.fault(), Fault::data);
  }
  try {
    check(false, "an invariant");
    FAIL() << "check let a false condition pass";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 1);
  }
  EXPECT_NO_THROW(check(true, Fault::data, "never seen"));
}

}  // namespace
}  // namespace conclave
