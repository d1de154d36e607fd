#include "framework/base/text.h"

#include <gtest/gtest.h>

#include <limits>

namespace conclave {
namespace {

TEST(Text, FixedKeepsItsDigits) {
  EXPECT_EQ(fixed(2.0 / 3, 3), "0.667");
  EXPECT_EQ(fixed(-1, 0), "-1");
  EXPECT_EQ(fixed(std::numeric_limits<double>::max(), 2).size(), 312u);
}

TEST(Text, OneThingIsNoPlural) {
  EXPECT_EQ(counted(1, "document"), "1 document");
  EXPECT_EQ(counted(0, "document"), "0 documents");
  EXPECT_EQ(counted(2, "batch", "batches"), "2 batches");
  EXPECT_EQ(counted(1, "batch", "batches"), "1 batch");
}

TEST(Text, BytesTakeTheUnitThatLeavesThreeDigits) {
  EXPECT_EQ(bytes_text(0), "0 B");
  EXPECT_EQ(bytes_text(999), "999 B");
  EXPECT_EQ(bytes_text(999.5), "1.0 kB");
  EXPECT_EQ(bytes_text(1234567), "1.2 MB");
  EXPECT_EQ(bytes_text(3e21), "3000.0 EB");
}

}  // namespace
}  // namespace conclave
