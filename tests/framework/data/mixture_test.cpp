// Weights of a mixture by number and by size, and the passes that come of them.
#include "framework/data/mixture.h"

#include <limits>

#include "framework/data/dataset.h"
#include "tests/framework/data/files_for_tests.h"

namespace conclave {
namespace {

constexpr double size = std::numeric_limits<double>::infinity();

TEST(Mixture, DatasetsThatWeighBySizeShareWhatTheyWouldHaveByNumber) {
  EXPECT_EQ(mixture_weights({{"a", "x", 2.0}, {"b", "y", 0.5}}, {10, 1000}), (std::vector<double>{2.0, 0.5}));
  EXPECT_EQ(mixture_weights({{"a", "x", size}, {"b", "x", size}}, {300, 100}),
            (std::vector<double>{1.5, 0.5}));
  EXPECT_EQ(mixture_weights({{"a", "x", size}, {"b", "y", 4.0}, {"c", "x", size}}, {300, 7, 100}),
            (std::vector<double>{1.5, 4.0, 0.5}));
}

TEST(Mixture, PassesFollowFromWeightsAndSizes) {
  EXPECT_EQ(planned_passes({1, 3}, {10, 100}, 400), (std::vector<double>{10.0, 3.0}));
}

TEST(Mixture, TrainingGoesOverDatasetsThatWeighBySizeEquallyOften) {
  const TemporaryFolder folder;
  DataRecipe recipe;
  recipe.sequence_length = 4;
  for (const auto& [name, sequences] : {std::pair{"large", 300}, std::pair{"small", 100}}) {
    write_tokens(folder / name, {std::vector<std::int32_t>(static_cast<std::size_t>(4 * sequences + 1), 7)});
    recipe.train.push_back({folder / name, "x", size});
  }
  const auto batch = [](std::int64_t) { return std::int64_t{8}; };
  TrainingData data(recipe, 257, 3, batch);
  std::vector<std::int64_t> counted(2);
  for (std::int64_t step = 0; step < 50; ++step)
    for (const DrawnSequence& one : data.batch(step, 0, 8).drawn)
      ++counted[static_cast<std::size_t>(one.dataset)];
  EXPECT_EQ(data.drawn(50), counted);
  EXPECT_NEAR(static_cast<double>(counted[0]) / 300, 1.0, 0.02);
  EXPECT_NEAR(static_cast<double>(counted[1]) / 100, 1.0, 0.02);
  recipe.train[0].weight = recipe.train[1].weight = 1;
  EXPECT_EQ(TrainingData(recipe, 257, 3, batch).drawn(50), (std::vector<std::int64_t>{200, 200}));
}

}  // namespace
}  // namespace conclave
