// Durations: every form that Slurm writes, and what is none.
#include "framework/recipe/duration.h"

#include <gtest/gtest.h>

#include <utility>

namespace conclave {
namespace {

TEST(Duration, EveryForm) {
  const std::pair<const char*, double> forms[] = {
      {"0", 0},         {"90", 90},         {"90.5", 90.5},
      {"02:03", 123},   {"01:02:03", 3723}, {"100:00:00", 360000},
      {"2-03", 183600}, {"1-00:30", 88200}, {"1-02:03:04", 93784},
  };
  for (const auto& [text, seconds] : forms) {
    ASSERT_TRUE(seconds_of_duration(text)) << text;
    EXPECT_EQ(*seconds_of_duration(text), seconds) << text;
  }
}

TEST(Duration, WhatIsNone) {
  for (const char* text : {"", "-5", "one", "1:", ":1", "1:2:3:4", "1-", "-1:00", "1-1:1:1:1", "1:-2", "nan",
                           "inf", "1e", "1:2x", "99999999999:00"})
    EXPECT_FALSE(seconds_of_duration(text)) << text;
}

}  // namespace
}  // namespace conclave
