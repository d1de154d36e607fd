// A trainer knows of a stop only what its caller says. A stop that this process was asked for changes nothing
// in a step of a trainer of one's own.
#include <gtest/gtest.h>

#include <algorithm>

#include "launch/train/stop_signals.h"
#include "tests/launch/synthetic_trainer.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

using test::make_trainer;
using test::mpi_world;
using test::tiny_recipe;

std::vector<double> values(const Trainer& trainer) {
  return trainer.model().parameters.values().to_host<double>();
}

TEST(StopRequest, OneOfTheProcessChangesNoStep) {
  Mesh mesh(mpi_world(), {});
  const auto before = make_trainer(tiny_recipe(), mesh), after = make_trainer(tiny_recipe(), mesh);
  const StepResult expected = before->step();
  ASSERT_FALSE(stop_was_requested());
  request_stop();  // from here on, as it cannot be taken back
  ASSERT_TRUE(stop_was_requested());
  const StepResult result = after->step();
  EXPECT_FALSE(result.stop);
  EXPECT_EQ(result.loss, expected.loss);
  EXPECT_EQ(values(*after), values(*before));
}

TEST(StopRequest, OneRankIsEnoughToStopAll) {
  Mesh mesh(mpi_world(), {});
  const auto trainer = make_trainer(tiny_recipe(), mesh);
  int asked = 0;
  const auto on_the_last_rank = [&] {
    ++asked;
    return mpi_world()->rank() == mpi_world()->size() - 1;
  };
  const StepResult result = trainer->step({2.5}, on_the_last_rank);
  EXPECT_TRUE(result.stop);
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(result.votes, std::vector<double>{2.5 * mpi_world()->size()});
  EXPECT_FALSE(trainer->step({}, [] { return false; }).stop);
}

TEST(StopRequest, ItIsAskedForAfterTheWorkOfTheStep) {
  Mesh mesh(mpi_world(), {});
  const Recipe recipe = tiny_recipe();
  bool came = false;  // as a signal does, in the middle of the step
  Trainer trainer(recipe, mesh, [&](std::int64_t step, std::int64_t first, std::int64_t count) {
    came = true;
    return test::synthetic_batch(recipe, step, first, count);
  });
  EXPECT_TRUE(trainer.step({}, [&] { return came; }).stop);
}

TEST(StopRequest, AStepWithoutTargetsHearsOfItToo) {
  Mesh mesh(mpi_world(), {});
  const Recipe recipe = tiny_recipe();
  Trainer trainer(recipe, mesh, [&](std::int64_t step, std::int64_t first, std::int64_t count) {
    Batch batch = test::synthetic_batch(recipe, step, first, count);
    std::fill(batch.targets.begin(), batch.targets.end(), -1);
    return batch;
  });
  const StepResult result = trainer.step({}, [] { return true; });
  EXPECT_TRUE(result.no_targets);
  EXPECT_TRUE(result.stop);
}

}  // namespace
}  // namespace conclave
