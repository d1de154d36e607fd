// The plan of `conclave validate`, against what a step does on 1, 2 and 4 ranks. Given the experts that the
// real routers chose, a dry run hands over the same bytes for each purpose and needs the same memory within a
// thousandth, whether routing is nearly even or all tokens choose the same experts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "framework/device/profile.h"
#include "launch/plan/few_steps.h"
#include "launch/plan/plan.h"
#include "launch/train/recipe_rules.h"
#include "launch/train/trainer.h"
#include "tests/launch/integers_travel.h"
#include "tests/launch/synthetic.h"
#include "tests/mpi_world.h"

namespace conclave {
namespace {

/// Large enough that no small tensor matters; activations outweigh parameters.
Recipe base_recipe() {
  Recipe recipe = test::tiny_recipe();
  recipe.model.vocab_size = 512;
  recipe.model.hidden_size = 96;
  recipe.model.intermediate_size = 160;
  recipe.model.num_hidden_layers = 3;
  recipe.model.head_dim = 32;
  recipe.model.num_attention_heads = 4;
  recipe.model.num_key_value_heads = 2;
  recipe.model.initializer_range = 0.02;  // nearly even routing
  recipe.model.moe.moe_intermediate_size = 80;
  recipe.model.moe.num_shared_experts = 0;
  recipe.model.moe.balance = {{.scope = BalanceScope::micro_batch, .coefficient = 0.01}};
  recipe.data.sequence_length = 96;
  recipe.data.train = {{.path = "unread", .domain = "random"}};
  recipe.training.global_batch_size = 16;
  recipe.training.micro_batch_size = 4;
  recipe.training.precision = NumberFormat::fp32;
  return recipe;
}

/// As large without a draw: choices() looks outside of training.
constexpr PoolRecipe pool_of_6{.minimum = 6, .maximum = 6, .evaluation = 6};

struct Case {
  std::string name;
  Recipe recipe;
};

/// Each kind of layout that these ranks can have, with the other choices taking turns.
std::vector<Case> cases(std::int64_t ranks) {
  std::vector<Case> all;
  const auto with = [&](const std::string& name, std::int64_t least, auto change) {
    if (ranks < least) return;
    all.push_back({name, base_recipe()});
    change(all.back().recipe);
  };
  with("plain", 1, [](Recipe&) {});
  with("recompute", 1, [](Recipe& r) { r.training.recompute = Recompute::block; });
  with("fp64, shared experts, dense block", 1, [](Recipe& r) {
    r.training.precision = NumberFormat::fp64;
    r.model.moe.num_shared_experts = 1;
    r.model.moe.first_k_dense_replace = 1;
  });
  with("bf16, shared experts", 1, [](Recipe& r) {
    r.training.precision = NumberFormat::bf16;
    r.model.moe.num_shared_experts = 1;
  });
  with("bf16, sequence, expert, zero", 2, [](Recipe& r) {
    r.training.precision = NumberFormat::bf16;
    r.parallel.tensor = 2;
    r.parallel.sequence = true;
    r.parallel.expert = 2;
    r.parallel.zero = 1;
  });
  with("bf16, tensor, expert, all_gather, recompute", 2, [](Recipe& r) {
    r.training.precision = NumberFormat::bf16;
    r.training.recompute = Recompute::block;
    r.parallel.tensor = 2;
    r.parallel.expert = 2;
    r.parallel.dispatcher = DispatcherKind::all_gather;
  });
  with("dense, without norms of queries, tied", 1, [](Recipe& r) {
    r.model.moe.first_k_dense_replace = 3;
    r.model.qk_norm = false;
    r.model.tie_word_embeddings = true;
    r.model.intermediate_size = 500;
  });
  with("norms over all heads, half of each head turned", 1, [](Recipe& r) {
    r.model.qk_norm_over = QkNormOver::all_heads;
    r.model.partial_rotary_factor = 0.5;
  });
  with("pools of documents, exact", 1, [](Recipe& r) {
    r.model.moe.router.pool = pool_of_6;
    r.model.moe.balance[0] = {.scope = BalanceScope::global_batch, .estimator = Estimator::exact};
  });
  with("wide vocabulary", 1, [](Recipe& r) { r.model.vocab_size = 4000; });
  with("exact", 1, [](Recipe& r) {
    r.model.moe.balance[0] = {.scope = BalanceScope::global_batch, .estimator = Estimator::exact};
  });
  with("sigmoid, groups of sequences", 1, [](Recipe& r) {
    r.model.moe.router = {.kind = RouterKind::sigmoid, .n_group = 4, .topk_group = 2};
    r.model.moe.balance = {{.scope = BalanceScope::group, .balance_batch_size = 8},
                           {.scope = BalanceScope::group, .balance_batch_size = 2}};
  });
  with("selection bias of sequences, one micro-step, shuffle", 1, [ranks](Recipe& r) {
    r.model.moe.router.bias = {.rate = 0.001, .scope = BiasScope::sequence};
    r.model.moe.balance = {{.scope = BalanceScope::shuffle},
                           {.scope = BalanceScope::global_batch, .estimator = Estimator::exact}};
    r.training.micro_batch_size = r.training.global_batch_size / ranks;
  });
  with("zero", 2, [](Recipe& r) { r.parallel.zero = 1; });
  with("shuffle over micro-steps", 2,
       [](Recipe& r) { r.model.moe.balance = {{.scope = BalanceScope::shuffle}}; });
  with("tensor, capacity, selection bias of micro-batches", 2, [](Recipe& r) {
    r.parallel.tensor = 2;
    r.model.moe.capacity_factor = 64;  // drops nothing
    r.model.moe.router.bias = {.rate = 0.001, .scope = BiasScope::micro_batch};
  });
  with("expert", 2, [](Recipe& r) { r.parallel.expert = 2; });
  with("expert, recompute, exact", 2, [](Recipe& r) {
    r.parallel.expert = 2;
    r.training.recompute = Recompute::block;
    r.model.moe.balance[0] = {.scope = BalanceScope::global_batch, .estimator = Estimator::exact};
  });
  with("expert, one round", 2, [](Recipe& r) {
    r.parallel.expert = 2;
    r.parallel.dispatch_rows = 3000;
  });
  with("expert, rounds", 2, [](Recipe& r) {
    r.parallel.expert = 2;
    r.parallel.dispatch_rows = 300;
  });
  with("expert, rounds, recompute, fp64", 2, [](Recipe& r) {
    r.parallel.expert = 2;
    r.parallel.dispatch_rows = 200;
    r.training.recompute = Recompute::block;
    r.training.precision = NumberFormat::fp64;
  });
  with("expert, shared", 2, [](Recipe& r) {
    r.parallel.expert = 2;
    r.model.moe.num_shared_experts = 2;
  });
  with("expert, all_gather", 2, [](Recipe& r) {
    r.parallel.expert = 2;
    r.parallel.dispatcher = DispatcherKind::all_gather;
    r.model.moe.num_shared_experts = 2;
  });
  with("cosine scores, expert", 1, [ranks](Recipe& r) {
    r.parallel.expert = ranks;
    r.model.moe.router.score = CosineScoreRecipe{};
  });
  with("expert_tensor", 2, [](Recipe& r) {
    r.parallel.expert_tensor = 2;
    r.parallel.zero = 1;
  });
  with("tensor", 2, [](Recipe& r) {
    r.parallel.tensor = 2;
    r.model.moe.first_k_dense_replace = 1;
  });
  with("sequence", 2, [](Recipe& r) {
    r.parallel.tensor = 2;
    r.parallel.sequence = true;
    r.model.moe.first_k_dense_replace = 1;
  });
  with("sequence, expert, recompute, pools", 2, [](Recipe& r) {
    r.parallel.tensor = 2;
    r.parallel.sequence = true;
    r.parallel.expert = 2;
    r.training.recompute = Recompute::block;
    r.model.moe.router.pool = pool_of_6;
  });
  with("tensor of all, pools, exact", 2, [ranks](Recipe& r) {
    r.parallel.tensor = ranks;
    r.model.num_key_value_heads = 4;
    r.model.moe.router.pool = pool_of_6;
    r.model.moe.balance[0] = {.scope = BalanceScope::global_batch, .estimator = Estimator::exact};
  });
  with("sequence, expert, recompute, zero", 2, [](Recipe& r) {
    r.parallel.tensor = 2;
    r.parallel.sequence = true;
    r.parallel.expert = 2;
    r.parallel.zero = 1;
    r.training.recompute = Recompute::block;
  });
  with("tensor, expert, shared", 4, [](Recipe& r) {
    r.parallel.tensor = 2;
    r.parallel.expert = 4;
    r.model.moe.num_shared_experts = 1;
  });
  with("expert x expert_tensor", 4, [](Recipe& r) {
    r.parallel.expert = 2;
    r.parallel.expert_tensor = 2;
    r.parallel.dispatch_rows = 1000;
  });
  with("tensor, all_gather", 4, [](Recipe& r) {
    r.parallel.tensor = 2;
    r.parallel.expert = 2;
    r.parallel.expert_tensor = 2;
    r.parallel.dispatcher = DispatcherKind::all_gather;
  });
  return all;
}

/// Random tokens without padding.
Batch random_batch(const Recipe& recipe, std::int64_t step, std::int64_t first, std::int64_t count) {
  Batch batch;
  batch.sequences = count;
  batch.length = recipe.data.sequence_length;
  for (std::int64_t position = first; position < first + count; ++position) {
    const RandomKey key =
        RandomKey(7).with(static_cast<std::uint64_t>(step)).with(static_cast<std::uint64_t>(position));
    const auto token = [&](std::int64_t column) {
      return static_cast<std::int32_t>(
          key.below(static_cast<std::uint64_t>(column), static_cast<std::uint64_t>(recipe.model.vocab_size)));
    };
    for (std::int64_t column = 0; column < batch.length; ++column) {
      batch.tokens.push_back(token(column));
      batch.targets.push_back(token(column + 1));
      batch.document_start.push_back(0);
    }
    batch.domain.push_back(0);
  }
  return batch;
}

/// All scores of every router tie, and ties go to the first experts, those of rank 0.
void tie_routers(const Trainer& trainer) {
  for (const Parameter& parameter : trainer.model().parameters.all())
    if (parameter.name.ends_with(".mlp.gate.weight") || parameter.name.ends_with(".mlp.gate.projection"))
      parameter.value.fill_zero();
}

double mean_over_ranks(double value) {
  const Tensor sum = Tensor::from(std::vector<double>{value}, {1});
  test::mpi_world()->all_reduce(sum, ReduceOp::sum, Purpose::agreement);
  return sum.item() / test::mpi_world()->size();
}

double live() {
  return static_cast<double>(cpu_device().memory_use().live);
}

class MeasuredRun {
 public:
  explicit MeasuredRun(const Recipe& recipe)
      : recipe_(recipe),
        world_(test::mpi_world()),
        mesh_(world_, degrees_of(recipe.parallel)),
        before_(live()),
        trainer_(recipe, mesh_, [recipe](std::int64_t step, std::int64_t first, std::int64_t count) {
          return random_batch(recipe, step, first, count);
        }) {
    validate_recipe(recipe, world_->size());
  }

  Trainer& trainer() { return trainer_; }
  /// The memory of the trainer, between steps.
  double states() const { return live() - before_; }

  /// A dry run of the next step when tokens go to the experts that they really go to: a forward
  /// pass with the same weights chooses the same.
  DryStep dry_step_with_real_choices() {
    const Communicator& data = mesh_.axis(Axis::data);
    const Communicator& tensor = mesh_.axis(Axis::tensor);
    const std::int64_t micro = recipe_.training.micro_batch_size, step = trainer_.steps_done();
    // By layer and tokens: a dry run may come by several times, and backward comes in another order.
    std::map<std::pair<std::string, std::vector<std::int32_t>>, std::vector<std::int32_t>> chosen;
    for (std::int64_t m = 0; m < recipe_.training.global_batch_size / (micro * data.size()); ++m) {
      Tape tape(Tape::Mode::forward_only);
      const ModelInput input =
          to_device(random_batch(recipe_, step, (m * data.size() + data.rank()) * micro, micro));
      const auto tokens = shard_of(input, tensor.rank(), tensor.size()).tokens.to_host<std::int32_t>();
      std::size_t layer = 0;
      for (const RouterStatistics& statistics : trainer_.model().transformer.forward(tape, input).statistics)
        chosen[{join_text("model.layers.", moe_blocks(recipe_.model)[layer++]), tokens}] =
            statistics.chosen.to_host<std::int32_t>();
    }
    const auto choose = [&](std::span<const std::int32_t> tokens, std::int64_t, std::span<std::int32_t> to) {
      const std::string& layer =
          Profile::active()->layers()[static_cast<std::size_t>(ProfilePlace::current().layer)];
      const std::vector<std::int32_t>& real = chosen.at({layer, {tokens.begin(), tokens.end()}});
      std::copy(real.begin(), real.end(), to.begin());
    };
    return dry_step(recipe_, test::integers_travel(world_), choose,
                    {.batches = [&](std::int64_t, std::int64_t first, std::int64_t count) {
                      return random_batch(recipe_, step, first, count);
                    }});
  }

  /// The most that was live in one step, beside what was there before the trainer.
  double peak_of_step() {
    cpu_device().reset_peak();
    trainer_.step();
    return static_cast<double>(cpu_device().memory_use().peak) - before_;
  }

  TrafficTable traffic_of_step() {
    const TrafficTable before = world_->traffic();
    trainer_.step({0.0});  // with the vote of a save, as training has it
    return world_->traffic().since(before);
  }

 private:
  Recipe recipe_;
  std::shared_ptr<Communicator> world_;
  Mesh mesh_;
  double before_;
  Trainer trainer_;
};

TEST(PlanMeasured, BytesOnTheNetworkAreThePlans) {
  const int ranks = test::mpi_world()->size();
  for (const Case& one : cases(ranks)) {
    SCOPED_TRACE(one.name);
    MeasuredRun run(one.recipe);
    const NetworkPlan even = plan_network(one.recipe, ranks);
    for (int step = 0; step < 2; ++step) {
      const NetworkPlan plan = plan_network(run.dry_step_with_real_choices());
      const TrafficTable traffic = run.traffic_of_step();
      const auto bytes = [&](Purpose purpose) { return static_cast<double>(traffic[purpose].bytes); };
      EXPECT_EQ(bytes(Purpose::gradients), plan.gradients);
      EXPECT_EQ(bytes(Purpose::parameters), plan.parameters);
      EXPECT_EQ(bytes(Purpose::activations), plan.activations);
      EXPECT_EQ(bytes(Purpose::dispatch), plan.dispatch);
      EXPECT_EQ(bytes(Purpose::combine), plan.combine);
      EXPECT_EQ(bytes(Purpose::statistics), plan.statistics);
      // The rest does not hang on the choice: the first of ranks that are not there does it.
      EXPECT_EQ(plan.gradients, even.gradients);
      EXPECT_EQ(plan.parameters, even.parameters);
      EXPECT_EQ(plan.activations, even.activations);
      EXPECT_EQ(plan.statistics, even.statistics);
    }
  }
}

TEST(PlanMeasured, MemoryIsThePlans) {
  const std::shared_ptr<Communicator> world = test::mpi_world();
  for (const Case& one : cases(world->size())) {
    SCOPED_TRACE(one.name);
    const MemoryPlan plan = plan_memory(one.recipe, world->size());
    MeasuredRun run(one.recipe);
    // Optimizer shards end in gaps and come with a buffer per bucket, each rounded.
    EXPECT_NEAR(run.states(), plan.states(), one.recipe.parallel.zero > 0 ? 0.01 * plan.states() : 0);
    const auto& parameters = run.trainer().model().parameters;
    EXPECT_EQ(static_cast<double>(parameters.values().bytes()), plan.parameters);
    EXPECT_EQ(static_cast<double>(parameters.gradients().bytes()), plan.gradients);
    for (int step = 0; step < 2; ++step) {
      const DryStep dry = run.dry_step_with_real_choices();
      EXPECT_EQ(run.states(), dry.states);
      const double activations = dry.peak - dry.states;
      const double states = run.states(), peak = run.peak_of_step();
      const double mean = mean_over_ranks(peak);
      if (world->rank() == 0 && step == 0)
        std::printf(
            "%-36s states %5.2f MB, activations %5.2f MB; to the plan given the choice %+5.2f %%, expected "
            "%+5.2f %%\n",
            one.name.c_str(), states / 1e6, (peak - states) / 1e6, 100 * ((peak - states) / activations - 1),
            100 * (mean / plan.total() - 1));
      EXPECT_NEAR(peak - states, activations, 0.001 * activations);
      // The plan expects an even load, which the mean over the ranks comes near.
      EXPECT_NEAR(mean, plan.total(), 0.05 * plan.total());
    }
  }
}

// All tokens choose the first experts, those of the first ranks of each group. Under dispatch_rows the plan's
// worst is another case, just before rounds begin; then the rounds must come out as their own dry run says.
TEST(PlanMeasured, TheWorstMemoryIsThePlans) {
  const std::shared_ptr<Communicator> world = test::mpi_world();
  for (const Case& one : cases(world->size())) {
    SCOPED_TRACE(one.name);
    const MemoryPlan plan = plan_memory(one.recipe, world->size());
    MeasuredRun run(one.recipe);
    tie_routers(run.trainer());
    const double peak = run.peak_of_step();
    const std::int64_t here = one.recipe.model.moe.num_experts / one.recipe.parallel.expert;
    const double tied = dry_step_of_few(one.recipe, world->size(), crowded_choice(0, here)).peak;
    if (world->rank() == 0) {
      std::printf("%-36s at worst %5.2f MB, planned %5.2f MB, %+5.2f %%\n", one.name.c_str(), peak / 1e6,
                  plan.worst_total() / 1e6, 100 * (peak / plan.worst_total() - 1));
      EXPECT_NEAR(peak, tied, 0.05 * tied);
    }
    EXPECT_LT(peak, 1.05 * plan.worst_total());
  }
}

}  // namespace
}  // namespace conclave
