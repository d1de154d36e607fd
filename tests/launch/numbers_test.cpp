// Numbers that go wrong on 1 and 2 ranks: all ranks skip the step alike, a skipped step is bit-equal to an
// update left out by hand, and the first place is named. Replicas that differ and ranks that lag are named
// too.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>
#include <thread>

#include "framework/store/checkpoint_file.h"
#include "launch/train/checkpointing.h"
#include "launch/train/loss_spikes.h"
#include "launch/train/step_clock.h"
#include "parallel/agreement.h"
#include "parallel/replica_check.h"
#include "tests/framework/store/scratch_directory.h"
#include "tests/launch/synthetic_trainer.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

using test::make_trainer;
using test::mpi_world;
using test::synthetic_batch;
using test::tiny_recipe;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

Recipe warm_recipe() {
  Recipe recipe = tiny_recipe();
  recipe.model.vocab_size = 64;  // divides over tensor ranks
  // An estimator with state from step to step: skipping must leave that alone too.
  recipe.model.moe.balance = {
      {.scope = BalanceScope::global_batch, .estimator = Estimator::warm, .coefficient = 0.1}};
  return recipe;
}

const Parameter& parameter(const Trainer& trainer, std::string_view name) {
  return trainer.model().parameters.find(name);
}

/// The values of all parameters, and of the last step what the next one depends on.
std::vector<double> values(const Trainer& trainer) {
  return trainer.model().parameters.values().to_host<double>();
}

/// A checkpoint of one trainer that another one loads.
void save_and_load(const Trainer& from, Trainer& to, const std::filesystem::path& folder) {
  const std::string shared = broadcast_text(*mpi_world(), folder.string(), 0);
  Logger logger({.rank = 1});  // speaks only of failures
  Checkpointing checkpointing(shared, {}, *mpi_world(), logger);
  checkpointing.save(from);
  checkpointing.finish();
  ASSERT_FALSE(checkpointing.last_failure());
  to.load(CheckpointReader(checkpointing.last_checkpoint()));
}

/// Damages one number of a parameter on one rank for the length of a step.
StepResult step_with_damage(Trainer& trainer, const std::string& name, int rank, double damage) {
  const Tensor value = parameter(trainer, name).value;
  double& element = value.data<double>()[1];
  const double good = element;
  if (mpi_world()->rank() == rank) element = damage;
  const StepResult result = trainer.step();
  if (mpi_world()->rank() == rank) element = good;
  return result;
}

TEST(Numbers, ASkippedStepEqualsAnUpdateLeftOutByHand) {
  const Recipe recipe = warm_recipe();
  Mesh mesh(mpi_world(), {});
  const auto trainer = make_trainer(recipe, mesh), before = make_trainer(recipe, mesh),
             by_hand = make_trainer(recipe, mesh);
  for (int step = 0; step < 3; ++step) {
    trainer->step();
    before->step();
  }
  const int last_rank = mpi_world()->size() - 1;
  const StepResult skipped =
      step_with_damage(*trainer, "model.layers.1.post_attention_layernorm.weight", last_rank, nan);
  EXPECT_TRUE(skipped.skipped);
  EXPECT_EQ(skipped.step, 4);
  EXPECT_EQ(trainer->steps_done(), 4);
  EXPECT_EQ(values(*trainer), values(*before));
  const ScratchDirectory scratch;
  save_and_load(*before, *by_hand, scratch.path());
  by_hand->go_on_after(4, trainer->tokens_done(), trainer->sequences_done());
  ASSERT_EQ(by_hand->steps_done(), 4);
  for (int step = 4; step < 8; ++step) {
    const StepResult a = trainer->step(), b = by_hand->step();
    EXPECT_FALSE(a.skipped);
    EXPECT_EQ(a.step, b.step);
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_EQ(a.gradient_norm, b.gradient_norm);
    EXPECT_EQ(a.learning_rate, b.learning_rate);
    EXPECT_EQ(a.balance.counts, b.balance.counts);
  }
  EXPECT_EQ(values(*trainer), values(*by_hand));
}

/// Step `bare` has no target on any rank; in every other step one micro-batch has none.
Trainer::BatchSource batches_without_targets(const Recipe& recipe, std::int64_t bare) {
  return [recipe, bare](std::int64_t step, std::int64_t first, std::int64_t count) {
    Batch batch = synthetic_batch(recipe, step, first, count);
    if (step == bare || first == 0) std::fill(batch.targets.begin(), batch.targets.end(), -1);
    return batch;
  };
}

TEST(Numbers, AStepWithoutATargetEqualsAnUpdateLeftOutByHand) {
  const Recipe recipe = warm_recipe();
  Mesh mesh(mpi_world(), {});
  Trainer trainer(recipe, mesh, batches_without_targets(recipe, 3)),
      before(recipe, mesh, batches_without_targets(recipe, -1)),
      by_hand(recipe, mesh, batches_without_targets(recipe, -1));
  for (int step = 0; step < 3; ++step) {
    EXPECT_FALSE(trainer.step().no_targets);
    before.step();
  }
  const StepResult bare = trainer.step({2.5});
  EXPECT_TRUE(bare.no_targets);
  EXPECT_FALSE(bare.skipped);  // it is no fault of the numbers
  EXPECT_EQ(bare.step, 4);
  EXPECT_GT(bare.tokens, 0);
  EXPECT_TRUE(std::isnan(bare.lm_loss));
  EXPECT_EQ(bare.votes, std::vector<double>{2.5 * mpi_world()->size()});
  EXPECT_EQ(values(trainer), values(before));
  const ScratchDirectory scratch;
  save_and_load(before, by_hand, scratch.path());
  by_hand.go_on_after(4, trainer.tokens_done(), trainer.sequences_done());
  for (int step = 4; step < 7; ++step) {
    const StepResult a = trainer.step(), b = by_hand.step();
    EXPECT_FALSE(a.no_targets);
    EXPECT_EQ(a.step, b.step);
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_EQ(a.gradient_norm, b.gradient_norm);
    EXPECT_EQ(a.balance.counts, b.balance.counts);
  }
  EXPECT_EQ(values(trainer), values(by_hand));
}

TEST(Numbers, AStateThatIsNotFiniteIsNotSavedAndTheGoodOneStays) {
  Mesh mesh(mpi_world(), {});
  const auto trainer = make_trainer(warm_recipe(), mesh);
  trainer->step();
  const ScratchDirectory scratch;
  const std::string folder = broadcast_text(*mpi_world(), scratch.path().string(), 0);
  Logger logger({.rank = 1, .terminal = -1});
  Checkpointing checkpointing(folder, {.keep = 1}, *mpi_world(), logger);
  checkpointing.save(*trainer);
  checkpointing.finish();
  const std::filesystem::path good = checkpointing.last_checkpoint();
  trainer->step();
  double& element = parameter(*trainer, "model.norm.weight").value.data<double>()[1];
  const double value = element;
  for (const double damage : {nan, std::numeric_limits<double>::infinity()}) {
    element = damage;
    checkpointing.save(*trainer);
    checkpointing.finish();
    ASSERT_TRUE(checkpointing.last_failure());
    EXPECT_EQ(checkpointing.last_fault(), Fault::numeric);
    EXPECT_NE(checkpointing.last_failure()->find("model/model.norm.weight holds values that are not finite"),
              std::string::npos)
        << *checkpointing.last_failure();
    EXPECT_EQ(checkpointing.last_checkpoint(), good);
    EXPECT_NO_THROW(CheckpointReader{good});
  }
  element = value;
  checkpointing.save(*trainer);
  checkpointing.finish();
  EXPECT_FALSE(checkpointing.last_failure());
  EXPECT_NE(checkpointing.last_checkpoint(), good);
  agree(*mpi_world(), [] {});  // nobody removes what others read
}

TEST(Numbers, TheComparisonAboveSeesAnUpdate) {
  const Recipe recipe = warm_recipe();
  Mesh mesh(mpi_world(), {});
  const auto trainer = make_trainer(recipe, mesh), other = make_trainer(recipe, mesh);
  trainer->step();
  EXPECT_NE(values(*trainer), values(*other));
}

TEST(Numbers, TheFirstLayerThatIsNotFiniteIsNamedOnAllRanksAlike) {
  Mesh mesh(mpi_world(), {});
  const int last_rank = mpi_world()->size() - 1;
  struct Case {
    const char *parameter, *layer;
  };
  for (const auto& [name, layer] : {Case{"model.layers.0.input_layernorm.weight", "model.layers.0"},
                                    Case{"model.layers.1.post_attention_layernorm.weight", "model.layers.1"},
                                    Case{"model.norm.weight", "model.norm"}})
    for (const double damage : {nan, std::numeric_limits<double>::infinity()}) {
      const auto trainer = make_trainer(warm_recipe(), mesh);
      const StepResult result = step_with_damage(*trainer, name, last_rank, damage);
      EXPECT_TRUE(result.skipped);
      EXPECT_NE(result.not_finite.find(join_text("the output of ", layer, " on rank ", last_rank,
                                                 " in micro-batch 0 is the first that is not finite")),
                std::string::npos)
          << result.not_finite;
      for (const std::string& text : all_gather_text(*mpi_world(), result.not_finite))
        EXPECT_EQ(text, result.not_finite);
    }
}

TEST(Numbers, TheFirstGradientThatIsNotFiniteIsNamed) {
  Mesh mesh(self_communicator(), {});  // over several ranks the reducer needs the hook that is used here
  const auto trainer = make_trainer(warm_recipe(), mesh);
  trainer->step();
  const std::vector<double> before = values(*trainer);
  const Parameter& damaged = parameter(*trainer, "model.layers.1.self_attn.q_proj.weight");
  const Tensor gradient =
      trainer->model().parameters.gradients().part(damaged.offset, {damaged.shape.elements()});
  damaged.gradient.when_complete([&] { gradient.data<double>()[3] = nan; });
  const StepResult result = trainer->step();
  damaged.gradient.when_complete({});
  EXPECT_TRUE(result.skipped);
  EXPECT_TRUE(std::isfinite(result.loss));
  EXPECT_EQ(result.not_finite,
            "model.layers.1.self_attn.q_proj.weight is the first parameter whose gradient is not finite");
  EXPECT_EQ(values(*trainer), before);
  EXPECT_FALSE(trainer->step().skipped);
}

TEST(Numbers, GoingOnAfterALoadSkipsTheData) {
  const Recipe recipe = warm_recipe();
  Mesh mesh(mpi_world(), {});
  std::vector<std::int64_t> seen;
  Trainer trainer(recipe, mesh, [&](std::int64_t step, std::int64_t first, std::int64_t count) {
    if (seen.empty() || seen.back() != step) seen.push_back(step);
    return synthetic_batch(recipe, step, first, count);
  });
  const auto source = make_trainer(recipe, mesh);
  source->step();
  const ScratchDirectory scratch;
  save_and_load(*source, trainer, scratch.path());
  trainer.add_attributes([](std::int64_t steps_done) {
    return Attributes{{"data_position", "after step " + std::to_string(steps_done)}};
  });
  trainer.go_on_after(6, 1000, 60);
  EXPECT_EQ(std::get<std::string>(trainer.attributes().at("data_position")), "after step 6");
  EXPECT_EQ(trainer.step().step, 7);
  EXPECT_EQ(seen, (std::vector<std::int64_t>{6}));
  EXPECT_GT(trainer.tokens_done(), 1000);
  EXPECT_EQ(trainer.sequences_done(), 60 + recipe.training.global_batch_size);
}

TEST(Replicas, EqualOnesPassOnEveryLayout) {
  const int ranks = mpi_world()->size();
  for (const std::int64_t tensor : {1, 2})
    for (const std::int64_t expert : {1, 2}) {
      if (ranks % tensor != 0 || ranks % expert != 0) continue;
      for (const bool sequence : {false, true}) {
        Recipe recipe = warm_recipe();
        recipe.parallel.tensor = tensor;
        recipe.parallel.expert = expert;
        recipe.parallel.sequence = sequence;
        Mesh mesh(mpi_world(), {.tensor = tensor, .expert = expert});
        const auto trainer = make_trainer(recipe, mesh);
        for (int step = 0; step < 4; ++step) trainer->step();
        EXPECT_NO_THROW(check_replicas(trainer->model().parameters, mesh));
      }
    }
}

TEST(Replicas, AFlippedBitIsNamedWithItsRank) {
  const int ranks = mpi_world()->size(), flipped = ranks - 1;
  if (ranks == 1) GTEST_SKIP() << "needs two ranks";
  for (const std::int64_t tensor : {1, 2}) {
    if (ranks / tensor < 2) continue;
    Recipe recipe = warm_recipe();
    recipe.parallel.tensor = tensor;
    recipe.parallel.expert = tensor;
    Mesh mesh(mpi_world(), {.tensor = tensor, .expert = tensor});
    for (const char* name :
         {"model.layers.0.self_attn.k_proj.weight", "model.layers.1.mlp.experts.down_proj.weight",
          "model.layers.1.mlp.gate.weight", "model.norm.weight"}) {
      const auto trainer = make_trainer(recipe, mesh);
      trainer->step();
      if (mpi_world()->rank() == flipped) {
        std::uint64_t bits = 0;
        double& element = parameter(*trainer, name).value.data<double>()[5];
        std::memcpy(&bits, &element, sizeof bits);
        bits ^= 1;
        std::memcpy(&element, &bits, sizeof bits);
      }
      try {
        check_replicas(trainer->model().parameters, mesh);
        ADD_FAILURE() << name << ": no difference was seen";
      } catch (const Error& error) {
        EXPECT_EQ(error.fault(), Fault::machine);
        EXPECT_EQ(error.reach(), Reach::all_ranks);
        EXPECT_NE(std::string(error.what())
                      .find(join_text("replicas of ", name, " are not equal: rank ", flipped,
                                      " holds other values than rank ")),
                  std::string::npos)
            << error.what();
      }
    }
  }
}

TEST(SlowRanks, ARankThatLagsIsNamedWithThePart) {
  const int ranks = mpi_world()->size(), slow = ranks - 1;
  if (ranks == 1) GTEST_SKIP() << "needs two ranks";
  const Recipe recipe = warm_recipe();
  Mesh mesh(mpi_world(), {});
  Trainer trainer(recipe, mesh, [&](std::int64_t step, std::int64_t first, std::int64_t count) {
    if (mpi_world()->rank() == slow) std::this_thread::sleep_for(std::chrono::milliseconds(15));
    return synthetic_batch(recipe, step, first, count);
  });
  for (int step = 0; step < 19; ++step) trainer.step();
  EXPECT_TRUE(trainer.clock().slow_ranks().empty());  // too few steps to say
  trainer.step();
  bool named = false;
  for (const SlowRank& rank : trainer.clock().slow_ranks())
    if (rank.rank == slow) {
      named = true;
      EXPECT_NE(rank.sentence.find("most of it in data"), std::string::npos) << rank.sentence;
    }
  EXPECT_TRUE(named);
}

TEST(SlowRanks, OnlyWhatIsMoreThanAFifthAboveTheMedianIsNamed) {
  StepClock::Parts usual{};
  const auto at = [](Activity activity) { return static_cast<std::size_t>(activity); };
  usual[at(Activity::forward)] = 0.1;
  usual[at(Activity::backward)] = 0.2;
  StepClock::Parts little = usual, much = usual;
  little[at(Activity::forward)] += 0.05;
  much[at(Activity::backward)] += 0.07;
  EXPECT_TRUE(name_slow_ranks({usual, little, usual, usual}).empty());
  const std::vector<SlowRank> named = name_slow_ranks({usual, usual, much, usual});
  ASSERT_EQ(named.size(), 1u);
  EXPECT_EQ(named[0].rank, 2);
  EXPECT_NE(named[0].sentence.find("most of it in backward (0.2700 s against 0.2000 s)"), std::string::npos)
      << named[0].sentence;
}

TEST(LossSpikes, ALeapIsSeenOnceAndANewLevelIsNotOne) {
  LossSpikes spikes;
  for (int step = 0; step < 60; ++step) EXPECT_EQ(spikes.add(3.0 + 0.01 * (step % 3)), "") << step;
  EXPECT_EQ(spikes.add(3.4), "");  // many deviations, but less than half a nat
  EXPECT_NE(spikes.add(4.5), "");
  EXPECT_EQ(spikes.add(4.6), "");  // the same spike
  EXPECT_EQ(spikes.add(3.0), "");
  EXPECT_NE(spikes.add(5.0), "");  // another one
  EXPECT_EQ(spikes.add(nan), "");
  LossSpikes young;
  for (int step = 0; step < 10; ++step) young.add(3.0);
  EXPECT_EQ(young.add(9.0), "");  // too early to say
}

}  // namespace
}  // namespace conclave
