#include "parallel/agreement.h"

#include <gtest/gtest.h>

#include "tests/mpi_world.h"

namespace conclave {
namespace {

/// The error that agree() throws here; Fault::numeric with an empty text when it throws none.
Error agreed(Communicator& ranks, const std::function<void()>& action) {
  try {
    agree(ranks, action);
  } catch (const Error& error) {
    return error;
  }
  return Error(Fault::numeric, "");
}

TEST(Agreement, lets_all_ranks_pass_when_none_fails) {
  int ran = 0;
  agree(*test::mpi_world(), [&] { ++ran; });
  EXPECT_EQ(ran, 1);
}

TEST(Agreement, one_failing_rank_fails_all_with_its_sentence) {
  Communicator& world = *test::mpi_world();
  for (int failing = 0; failing < world.size(); ++failing) {
    const Error error = agreed(world, [&] {
      check(world.rank() != failing, Fault::data, "The file of rank ", failing, " is missing.");
    });
    const std::string text = join_text("The file of rank ", failing, " is missing.");
    EXPECT_EQ(error.what(), world.size() == 1 ? text : join_text("[rank ", failing, "] ", text));
    EXPECT_EQ(error.fault(), Fault::data);
  }
}

TEST(Agreement, the_lowest_of_several_failing_ranks_speaks) {
  Communicator& world = *test::mpi_world();
  const Error error = agreed(world, [&] {
    if (world.rank() > 0 || world.size() == 1) throw std::runtime_error(join_text("failure ", world.rank()));
  });
  EXPECT_STREQ(error.what(), world.size() == 1 ? "failure 0" : "[rank 1] failure 1");
  EXPECT_EQ(error.fault(), Fault::internal);
}

TEST(Agreement, nested_agreement_names_the_rank_once) {
  Communicator& world = *test::mpi_world();
  if (world.size() == 1) GTEST_SKIP() << "one rank is not named";
  const Error inner = agreed(world, [&] { check(world.rank() != 1, Fault::request, "wrong"); });
  EXPECT_STREQ(agreed(world, [&] { throw inner; }).what(), "[rank 1] wrong");
}

TEST(Agreement, no_memory_is_the_machines_fault) {
  EXPECT_EQ(agreed(*test::mpi_world(), [] { throw std::bad_alloc(); }).fault(), Fault::machine);
}

TEST(Agreement, require_same_names_the_first_rank_that_differs) {
  Communicator& world = *test::mpi_world();
  EXPECT_NO_THROW(require_same(world, "The recipe", "same"));
  EXPECT_NO_THROW(require_same(world, "The recipe", ""));
  if (world.size() == 1) return;
  const int differing = world.size() - 1;
  try {
    require_same(world, "The recipe", world.rank() == differing ? "samf" : "same");
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::request);
    EXPECT_NE(std::string(error.what())
                  .find(join_text("The recipe is not the same on all ", world.size(), " ranks: rank ",
                                  differing, " ")),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace conclave
