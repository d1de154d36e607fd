// One recipe, real token files, the same global batch: the losses that the command writes do not depend on
// the number of ranks or on how each replica cuts its share into micro-batches.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>

#include "framework/data/dataset.h"
#include "launch/train/recipe_text.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {

/// Balance counted exactly, so that nothing depends on micro-batches by definition, and far from a tiny
/// coefficient.
const std::string exact =
    " 'model.moe.balance=[{scope: global_batch, estimator: exact, coefficient: 0.1}]' checkpoint.interval=0"
    " evaluation.interval=0 training.steps=8 optimizer.lr=0.003";

class SameLosses : public Command {
 protected:
  /// One number per step, of the first eight.
  static std::vector<double> numbers(const std::string& output, const char* key) {
    std::vector<double> values;
    for (const Json& line : metrics(output))
      if (!line.contains("split")) values.push_back(line.at(key));
    return values;
  }
  static double worst(const std::vector<double>& a, const std::vector<double>& b) {
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] / b.at(i) - 1));
    return largest;
  }
};

TEST_F(SameLosses, OnOneTwoAndFourRanksWithAnyMicroBatch) {
  ASSERT_EQ(train("oracle", exact + " training.micro_batch_size=8").exit_code, 0);
  const std::vector<double> expected = numbers("oracle", "lm_loss");
  ASSERT_EQ(expected.size(), 8u);
  EXPECT_LT(expected.back(), expected.front() - 0.1) << "it does not learn: equal losses would mean little";
  for (const int ranks : {1, 2, 4})
    for (const int micro : {1, 2, 4}) {
      if (ranks * micro > 8) continue;  // the global batch
      const std::string output = "ranks" + std::to_string(ranks) + "-micro" + std::to_string(micro);
      const Outcome outcome =
          train(output, exact + " training.micro_batch_size=" + std::to_string(micro), ranks);
      ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
      const double difference = worst(numbers(output, "lm_loss"), expected);
      EXPECT_EQ(numbers(output, "lm_loss").size(), 8u);
      EXPECT_LT(difference, 1e-5) << output;
      EXPECT_LT(worst(numbers(output, "load_balance_loss"), numbers("oracle", "load_balance_loss")), 1e-3)
          << output;
      EXPECT_EQ(numbers(output, "target_tokens"), numbers("oracle", "target_tokens"));
      RecordProperty(output, std::to_string(difference * 1e9) + "e-9");
    }
  // Tests of the test: other data, or a balance loss that sees less, is far outside the tolerance.
  ASSERT_EQ(train("other-data", exact + " training.micro_batch_size=8 data.train.0.weight=3").exit_code, 0);
  EXPECT_GT(worst(numbers("other-data", "lm_loss"), expected), 1e-4);
  ASSERT_EQ(
      train("micro", exact + " training.micro_batch_size=1 model.moe.balance.0.scope=micro_batch").exit_code,
      0);
  EXPECT_GT(worst(numbers("micro", "lm_loss"), expected), 1e-5);
}

TEST_F(SameLosses, BecauseEveryLayoutTakesTheSameSequencesInAStep) {
  const Recipe recipe = load_recipe(path("recipe.yaml"));
  using Sequence = std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>>;  // tokens, targets
  const std::int64_t length = recipe.data.sequence_length, global = recipe.training.global_batch_size;
  const auto sequences = [&](std::int64_t step, std::int64_t replicas, std::int64_t micro) {
    std::multiset<Sequence> all;
    for (std::int64_t r = 0; r < replicas; ++r) {
      // Each rank has a reader of its own.
      TrainingData data(recipe.data, recipe.model.vocab_size, recipe.training.seed,
                        [&](std::int64_t) { return global; });
      for (std::int64_t m = 0; m < global / (replicas * micro); ++m) {
        const Batch batch = data.batch(step, (m * replicas + r) * micro, micro);
        for (std::int64_t row = 0; row < micro; ++row) {
          const auto part = [&](const std::vector<std::int32_t>& values) {
            return std::vector<std::int32_t>(values.begin() + row * length,
                                             values.begin() + (row + 1) * length);
          };
          all.emplace(part(batch.tokens), part(batch.targets));
        }
      }
    }
    return all;
  };
  for (std::int64_t step = 0; step < 8; ++step) {
    const auto expected = sequences(step, 1, global);
    EXPECT_EQ(std::set(expected.begin(), expected.end()).size(), 8u) << "a sequence came twice in a step";
    for (const std::int64_t replicas : {1, 2, 4})
      for (const std::int64_t micro : {1, 2}) EXPECT_EQ(sequences(step, replicas, micro), expected) << step;
    EXPECT_NE(sequences(step + 1, 1, global), expected);
  }
}

}  // namespace
}  // namespace conclave
