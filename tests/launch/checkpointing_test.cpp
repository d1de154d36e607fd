// Saving while training goes on, with real ranks: asynchronous equals synchronous bit for bit; no checkpoint
// is there before all ranks have written; a rank that cannot write fails the save and not the run; and what
// is saved on each of twelve layouts is loaded on each of the twelve.
#include "launch/train/checkpointing.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <thread>

#include "framework/store/checkpoint_directory.h"
#include "launch/train/checkpoint_choice.h"
#include "parallel/agreement.h"
#include "tests/framework/store/system_calls.h"
#include "tests/launch/synthetic_trainer.h"
#include "tests/mpi_world.h"
#include "tests/shared_directory.h"

namespace conclave {
namespace {

using test::SharedDirectory;
using enum NumberFormat;
namespace fs = std::filesystem;

struct Layout {
  int ranks;
  ParallelRecipe parallel;
};

const std::vector<Layout> twelve = {
    {1, {.zero = 0}},
    {1, {.zero = 1}},
    {2, {.zero = 1}},
    {2, {.tensor = 2, .zero = 0}},
    {2, {.expert = 2, .zero = 1}},
    {2, {.expert_tensor = 2, .zero = 1}},
    {3, {.zero = 1}},
    {4, {.zero = 1}},
    {4, {.tensor = 2, .expert = 2, .zero = 1}},
    {4, {.tensor = 4, .zero = 0}},
    {4, {.tensor = 2, .expert = 2, .expert_tensor = 2, .sequence = true, .zero = 0}},
    {4, {.expert = 4, .zero = 1}},
};

Recipe recipe_of_layout(const ParallelRecipe& parallel, NumberFormat precision) {
  Recipe recipe = test::tiny_recipe();
  recipe.model.vocab_size = 64;
  recipe.model.num_key_value_heads = 4;
  recipe.model.moe.balance = {
      {.scope = BalanceScope::global_batch, .estimator = Estimator::lagged, .coefficient = 0.1}};
  recipe.training.global_batch_size = 12;
  recipe.training.precision = precision;
  recipe.optimizer.groups = {{.pattern = "model.norm.*", .frozen = true}};
  recipe.parallel = parallel;
  return recipe;
}

/// Writes to nowhere.
Logger& silent_logger() {
  static Logger logger({.rank = 1, .terminal = ::open("/dev/null", O_WRONLY | O_CLOEXEC)});
  return logger;
}

/// Every tensor of a checkpoint, whole, as doubles.
std::map<std::string, std::vector<double>> tensors_of(const fs::path& path) {
  const CheckpointReader reader(path);
  std::map<std::string, std::vector<double>> tensors;
  for (const std::string& name : reader.names()) {
    if (reader.describe(name).type == ElementType::float64) {
      tensors[name] = reader.read_all<double>(name);
    } else {
      const std::vector<float> values = reader.read_all<float>(name);
      tensors[name].assign(values.begin(), values.end());
    }
    for (const double value : tensors[name]) EXPECT_FALSE(std::isnan(value)) << name;
  }
  return tensors;
}

fs::path save_at_once(const Trainer& trainer, const fs::path& checkpoints, Communicator& world) {
  Checkpointing checkpointing(checkpoints, {.asynchronous = false, .least_share_bytes = 256}, world,
                              silent_logger());
  checkpointing.save(trainer);
  EXPECT_FALSE(checkpointing.last_failure()) << *checkpointing.last_failure();
  return checkpointing.last_checkpoint();
}

std::vector<double> next_losses(Trainer& trainer, int steps) {
  std::vector<double> losses;
  for (int step = 0; step < steps; ++step) losses.push_back(trainer.step().loss);
  return losses;
}

/// Saves on one layout, loads on others: tensors bit-equal, then saved again bit-equal, losses equal.
void save_on_one_load_on(const Layout& from, const std::vector<Layout>& others, NumberFormat precision,
                         double tolerance) {
  const SharedDirectory directory;
  const auto world = test::mpi_world();
  std::map<int, std::shared_ptr<Communicator>>
      first_ranks;  // by their number; null where this rank is not in
  std::map<int, bool> member;
  for (const int ranks : {1, 2, 3, 4}) {
    member[ranks] = world->rank() < ranks;
    const std::vector<int> all = world->every_rank();
    const auto end_of_first = all.begin() + std::min(ranks, world->size());
    first_ranks[ranks] = world->split(member[ranks] ? std::vector<int>(all.begin(), end_of_first)
                                                    : std::vector<int>(end_of_first, all.end()),
                                      "first ranks");
  }
  std::vector<double> expected(5);
  const fs::path saved = directory.path() / "a" / "step-00000003";
  if (member[from.ranks]) {
    Mesh mesh(first_ranks[from.ranks], degrees_of(from.parallel));
    const auto trainer = test::make_trainer(recipe_of_layout(from.parallel, precision), mesh);
    next_losses(*trainer, 3);
    EXPECT_EQ(save_at_once(*trainer, directory.path() / "a", *first_ranks[from.ranks]), saved);
    trainer->gather_values([&](const std::string& name, const Tensor& whole) {
      std::vector<double> values;
      with_float_type(whole.dtype(), [&](auto zero) {
        const auto typed = whole.to_host<decltype(zero)>();
        values.assign(typed.begin(), typed.end());
      });
      if (world->rank() == 0) {
        EXPECT_EQ(tensors_of(saved).at(name), values) << name;
      }
    });
    expected = next_losses(*trainer, 5);
  }
  const Tensor shared = Tensor::from(expected, {5});
  world->broadcast(shared, 0, Purpose::agreement);
  expected = shared.to_host<double>();
  const auto tensors = tensors_of(saved);
  ASSERT_EQ(tensors.count("state/previous_fractions"), 1u);
  ASSERT_EQ(tensors.at("optimizer/moment1/model.norm.weight"), std::vector<double>(32, 0.0));  // frozen
  EXPECT_NE(tensors.at("optimizer/moment1/model.embed_tokens.weight")[0], 0.0);
  for (const Layout& to : others) {
    SCOPED_TRACE(join_text("loaded on ", to.ranks, " ranks, tensor ", to.parallel.tensor, ", expert ",
                           to.parallel.expert, ", expert_tensor ", to.parallel.expert_tensor, ", zero ",
                           to.parallel.zero));
    if (member[to.ranks]) {
      Communicator& ranks = *first_ranks[to.ranks];
      Mesh mesh(first_ranks[to.ranks], degrees_of(to.parallel));
      const auto trainer = test::make_trainer(recipe_of_layout(to.parallel, precision), mesh);
      const FoundCheckpoint found = newest_checkpoint(ranks, directory.path() / "a");
      EXPECT_EQ(found.path, saved);
      trainer->load(CheckpointReader(saved, Verify::nothing));
      const fs::path again = save_at_once(*trainer, directory.path() / "b", ranks);
      if (ranks.rank() == 0) {
        EXPECT_EQ(tensors_of(again), tensors);
      }
      const std::vector<double> losses = next_losses(*trainer, 5);
      for (std::size_t i = 0; i < losses.size(); ++i)
        EXPECT_NEAR(losses[i], expected[i], tolerance * std::abs(expected[i])) << "step " << i;
    }
    world->barrier();
  }
}

class EachLayout : public testing::TestWithParam<std::size_t> {};

TEST_P(EachLayout, LoadsOnAllTwelve) {
  if (test::mpi_world()->size() != 4) GTEST_SKIP() << "the twelve layouts are played on four ranks";
  save_on_one_load_on(twelve[GetParam()], twelve, fp64, 1e-10);
}

TEST_P(EachLayout, LoadsInFp32) {
  if (test::mpi_world()->size() != 4) GTEST_SKIP() << "the twelve layouts are played on four ranks";
  const std::size_t i = GetParam();
  save_on_one_load_on(twelve[i], {twelve[i], twelve[(i + 5) % 12], twelve[(i + 7) % 12]}, fp32, 1e-5);
}

// Master weights are saved, so the tensors are equal bit for bit; losses of other layouts up to rounding to
// bf16.
TEST_P(EachLayout, LoadsInBf16) {
  if (test::mpi_world()->size() != 4) GTEST_SKIP() << "the twelve layouts are played on four ranks";
  const std::size_t i = GetParam();
  save_on_one_load_on(twelve[i], {twelve[i], twelve[(i + 5) % 12]}, bf16, 0.01);
}

INSTANTIATE_TEST_SUITE_P(Twelve, EachLayout, testing::Range(std::size_t{0}, std::size_t{12}));

ParallelRecipe sharded() {
  return {.zero = 1};
}

/// A step as the train command makes it.
void step_of(Trainer& trainer, Checkpointing& checkpointing) {
  const StepResult result = trainer.step(checkpointing.votes());
  checkpointing.after_step(result.votes);
}

TEST(Checkpointing, AsynchronousEqualsSynchronousAndDoesNotDisturbTraining) {
  const SharedDirectory directory;
  const auto world = test::mpi_world();
  const Recipe recipe = recipe_of_layout(sharded(), fp32);
  std::map<bool, double> last_loss;
  for (const bool asynchronous : {false, true}) {
    Mesh mesh(world, {});
    const auto trainer = test::make_trainer(recipe, mesh);
    Checkpointing checkpointing(directory.path() / (asynchronous ? "asynchronous" : "synchronous"),
                                {.asynchronous = asynchronous, .least_share_bytes = 256}, *world,
                                silent_logger());
    for (int step = 1; step <= 8; ++step) {
      step_of(*trainer, checkpointing);
      if (step % 3 == 0) checkpointing.save(*trainer);  // the second may find the first still under way
    }
    checkpointing.finish();
    EXPECT_FALSE(checkpointing.is_saving());
    EXPECT_FALSE(checkpointing.last_failure());
    EXPECT_EQ(checkpointing.last_checkpoint().filename(), "step-00000006");
    last_loss[asynchronous] = trainer->step().loss;
  }
  EXPECT_EQ(last_loss[false], last_loss[true]);
  world->barrier();
  for (const char* step : {"step-00000003", "step-00000006"})
    EXPECT_EQ(tensors_of(directory.path() / "asynchronous" / step),
              tensors_of(directory.path() / "synchronous" / step));
}

// One rank's disk is slow: the others neither wait for it nor publish without it.
TEST(Checkpointing, NothingIsThereBeforeEveryRankHasWritten) {
  const SharedDirectory directory;
  const auto world = test::mpi_world();
  const bool slow = world->rank() == world->size() - 1;
  std::atomic<bool> held{true};
  if (slow)
    watch_system_calls("rank-0000" + std::to_string(world->rank()), [&](const SystemCall&) {
      while (held) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return Verdict{};
    });
  Mesh mesh(world, {});
  const auto trainer = test::make_trainer(recipe_of_layout(sharded(), fp32), mesh);
  Checkpointing checkpointing(directory.path(), {}, *world, silent_logger());
  trainer->step();
  checkpointing.save(*trainer);
  for (int step = 0; step < 200; ++step) step_of(*trainer, checkpointing);
  EXPECT_TRUE(checkpointing.is_saving());
  EXPECT_TRUE(list_checkpoints(directory.path()).empty());
  world->barrier();
  held = false;
  checkpointing.finish();
  watch_system_calls("", {});
  EXPECT_FALSE(checkpointing.last_failure());
  const CheckpointReader reader(checkpointing.last_checkpoint());
  EXPECT_EQ(reader.step(), 1);
}

TEST(Checkpointing, ARankThatCannotWriteFailsTheSaveAndNotTheRun) {
  const SharedDirectory directory;
  const auto world = test::mpi_world();
  const int bad = world->size() - 1;
  Mesh mesh(world, {});
  const auto trainer = test::make_trainer(recipe_of_layout(sharded(), fp32), mesh);
  Checkpointing checkpointing(directory.path(), {.keep = 1}, *world, silent_logger());
  trainer->step();
  checkpointing.save(*trainer);
  checkpointing.finish();
  const fs::path good = checkpointing.last_checkpoint();
  EXPECT_EQ(good.filename(), "step-00000001");

  for (const bool waited_for : {false, true})
    for (const int error : {ENOSPC, EIO}) {
      trainer->step();
      if (world->rank() == bad)
        watch_system_calls("rank-0000", [error](const SystemCall&) { return Verdict{.error = error}; });
      checkpointing.save(*trainer);
      if (waited_for) checkpointing.finish();
      for (int step = 0; step < 10000 && checkpointing.is_saving(); ++step) step_of(*trainer, checkpointing);
      watch_system_calls("", {});
      ASSERT_FALSE(checkpointing.is_saving());
      ASSERT_TRUE(checkpointing.last_failure());
      const std::string sentence = *checkpointing.last_failure();
      EXPECT_NE(sentence.find(std::strerror(error)), std::string::npos) << sentence;
      if (bad > 0) {
        EXPECT_NE(sentence.find(join_text("[rank ", bad, "]")), std::string::npos) << sentence;
      }
      EXPECT_EQ(checkpointing.last_checkpoint(), good);
      world->barrier();
      std::set<std::string> names;
      for (const auto& entry : fs::directory_iterator(directory.path()))
        names.insert(entry.path().filename().string());
      EXPECT_EQ(names, std::set<std::string>{"step-00000001"});  // nothing half-written beside it
      world->barrier();
    }

  // A disk that has recovered: the next save counts again. The old one goes only when the new state has
  // proven good.
  checkpointing.save(*trainer);
  checkpointing.finish();
  EXPECT_FALSE(checkpointing.last_failure());
  world->barrier();
  EXPECT_TRUE(fs::exists(good));
  world->barrier();
  checkpointing.trust_last_save();
  checkpointing.finish();
  world->barrier();
  EXPECT_FALSE(fs::exists(good));
  EXPECT_EQ(CheckpointReader(checkpointing.last_checkpoint()).step(), trainer->steps_done());
}

TEST(Checkpointing, OldCheckpointsThatStayAreNamedAndGoLater) {
  const SharedDirectory directory;
  const auto world = test::mpi_world();
  Mesh mesh(world, {});
  const auto trainer = test::make_trainer(recipe_of_layout(sharded(), fp32), mesh);
  const fs::path said = directory.path() / "log.txt";
  Logger logger({.rank = world->rank(), .terminal = ::open("/dev/null", O_WRONLY | O_CLOEXEC)});
  if (world->rank() == 0) logger.open_file(said.string());
  bool refuses = false;
  const auto check_place = [&] { check(!refuses, Fault::machine, "The directory does not answer."); };
  Checkpointing checkpointing(directory.path(), {.keep = 1, .check_place = check_place}, *world, logger);
  const auto save = [&] {
    trainer->step();
    checkpointing.save(*trainer);
    checkpointing.finish();
  };
  save();
  save();
  refuses = true;
  checkpointing.trust_last_save();
  checkpointing.finish();
  world->barrier();
  EXPECT_EQ(list_checkpoints(directory.path()).size(), 2u);
  if (world->rank() == 0) {
    std::ifstream file(said);
    const std::string log{std::istreambuf_iterator<char>(file), {}};
    EXPECT_NE(log.find("warning: Checkpoints older than step 2 could not be removed: The directory does not "
                       "answer. The next save tries again."),
              std::string::npos);
  }
  refuses = false;
  save();
  checkpointing.trust_last_save();
  checkpointing.finish();
  world->barrier();
  EXPECT_EQ(list_checkpoints(directory.path()).size(), 1u);
}

TEST(Checkpointing, TheRanksAgreeOnWhatIsDamaged) {
  const SharedDirectory directory;
  const auto world = test::mpi_world();
  Mesh mesh(world, {});
  const auto trainer = test::make_trainer(recipe_of_layout(sharded(), fp32), mesh);
  for (int step = 0; step < 3; ++step) {
    trainer->step();
    save_at_once(*trainer, directory.path(), *world);
  }
  world->barrier();
  const std::string last_shard = shard_name(world->size() - 1);
  if (world->rank() == 0) {
    fs::resize_file(directory.path() / "step-00000003" / last_shard, 1000);
    fs::remove(directory.path() / "step-00000002" / "index.h5");
  }
  world->barrier();
  const FoundCheckpoint found = newest_checkpoint(*world, directory.path());
  EXPECT_EQ(found.path, directory.path() / "step-00000001");
  ASSERT_EQ(found.rejected.size(), 2u);
  EXPECT_NE(found.rejected[0].find(last_shard + " has 1000 bytes, expected"), std::string::npos)
      << found.rejected[0];
  EXPECT_NE(found.rejected[1].find("index.h5"), std::string::npos) << found.rejected[1];
  EXPECT_THROW(find_checkpoint(*world, directory.path() / "step-00000003"), Error);
  world->barrier();
  if (world->rank() == 0) fs::remove(directory.path() / "step-00000001" / "manifest.json");
  world->barrier();
  EXPECT_FALSE(newest_checkpoint(*world, directory.path()).path);
  EXPECT_THROW(find_checkpoint(*world, directory.path()), Error);
}

}  // namespace
}  // namespace conclave
