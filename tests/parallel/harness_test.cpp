// Failures planted for tests/mpi_main.cpp; run only by the harness tests of CMakeLists.txt, with two ranks.
#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>
#include <thread>

#include "tests/mpi_world.h"

namespace conclave {
namespace {

TEST(Harness, DISABLED_one_rank_fails) {
  EXPECT_NE(test::mpi_world()->rank(), 1);
}

TEST(Harness, DISABLED_one_rank_throws) {
  // The others wait in a collective to which rank 0 never comes.
  if (test::mpi_world()->rank() == 0) throw std::runtime_error("planted");
  test::mpi_world()->barrier();
}

TEST(Harness, DISABLED_one_rank_hangs) {
  if (test::mpi_world()->rank() == 1) std::this_thread::sleep_for(std::chrono::hours(1));
  test::mpi_world()->barrier();
}

}  // namespace
}  // namespace conclave
