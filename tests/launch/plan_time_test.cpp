// The cost model: collectives against their formulas worked out by hand, a step's work against the count of
// operations, and what more ranks, more bytes and shared processors must do to it. Descriptions of machines
// are read strictly and come back as they were.
#include "launch/plan/plan_time.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "framework/base/error.h"
#include "launch/plan/collective_time.h"
#include "launch/plan/plan.h"
#include "launch/train/model_size.h"

namespace conclave {
namespace {

constexpr double free_rate = 1e30;  // costs nothing

/// A machine on which computing is free: what is to count gets a rate of its own.
MachineModel free_machine() {
  MachineModel machine;
  machine.processors_per_node = machine.ranks_per_node = 4;
  machine.products = machine.grouped_products = {free_rate, free_rate};
  machine.attention_operations_per_second = machine.scores_per_second = free_rate;
  machine.pass_bytes_per_second = machine.exponentials_per_second = machine.optimizer_bytes_per_second =
      free_rate;
  machine.within_node = {.latency_seconds = 2, .message_seconds = 0.5, .bytes_per_second = 10};
  machine.between_nodes = {.latency_seconds = 7, .message_seconds = 0.25, .bytes_per_second = 20};
  machine.reduced_bytes_per_second = 5;
  return machine;
}

Recipe small_recipe() {
  Recipe recipe;
  recipe.model.vocab_size = 48;
  recipe.model.hidden_size = 24;
  recipe.model.intermediate_size = 40;
  recipe.model.num_hidden_layers = 3;
  recipe.model.num_attention_heads = 4;
  recipe.model.num_key_value_heads = 2;
  recipe.model.head_dim = 8;
  recipe.model.moe.num_experts = 8;
  recipe.model.moe.num_experts_per_tok = 2;
  recipe.model.moe.moe_intermediate_size = 16;
  recipe.model.moe.num_shared_experts = 1;
  recipe.model.moe.first_k_dense_replace = 1;
  recipe.data.sequence_length = 128;
  recipe.training.global_batch_size = 16;
  recipe.training.micro_batch_size = 2;
  recipe.training.threads = 1;
  return recipe;
}

double seconds_of(const std::vector<NamedSeconds>& parts, const std::string& name) {
  const auto part =
      std::find_if(parts.begin(), parts.end(), [&](const NamedSeconds& p) { return p.name == name; });
  return part == parts.end() ? -1 : part->seconds;
}

// Latency 2 s, 10 bytes/s, 5 bytes/s added up; 40 bytes over 4 ranks of one node.
TEST(CollectiveTime, IsItsAlgorithmsMessages) {
  const MachineModel machine = free_machine();
  const CollectiveTime time(machine, 4);
  const RankGroup four{4, 1};
  EXPECT_DOUBLE_EQ(time.all_reduce_by_ring(four, 40), 6 * (2 + 1) + 30.0 / 5);
  EXPECT_DOUBLE_EQ(time.all_reduce_by_doubling(four, 40), 2 * (2 + 4) + 2 * 40.0 / 5);
  EXPECT_DOUBLE_EQ(time.all_reduce_by_halving(four, 40), 2 * ((2 + 1) + (2 + 2)) + 30.0 / 5);
  EXPECT_DOUBLE_EQ(time.all_reduce_by_tree(four, 40), 4 * (2 + 4) + 2 * 40.0 / 5);
  EXPECT_DOUBLE_EQ(time.all_reduce(four, 40), 20);
  EXPECT_DOUBLE_EQ(time.all_gather_by_ring(four, 40), 3 * (2 + 1));
  EXPECT_DOUBLE_EQ(time.all_gather_by_doubling(four, 40), (2 + 1) + (2 + 2));
  EXPECT_DOUBLE_EQ(time.reduce_scatter_by_ring(four, 40), 3 * (2 + 1) + 30.0 / 5);
  EXPECT_DOUBLE_EQ(time.reduce_scatter_by_halving(four, 40), 7 + 30.0 / 5);
  EXPECT_DOUBLE_EQ(time.all_to_all(four, 40), 2 + 2 * 0.5 + 3 * 10.0 / 10);
  // Three: one hands over first and gets the sum last.
  EXPECT_DOUBLE_EQ(time.all_reduce_by_doubling({3, 1}, 40), (2 + 4) * 3 + 2 * 40.0 / 5);
  EXPECT_DOUBLE_EQ(time.all_reduce_by_tree({3, 1}, 40), 4 * (2 + 4) + 2 * 40.0 / 5);
}

// Two ranks a node, whose link gives 20 bytes/s at a latency of 7 s.
TEST(CollectiveTime, RanksOfANodeShareItsLink) {
  MachineModel machine = free_machine();
  machine.ranks_per_node = 2;
  const CollectiveTime time(machine, 8);
  // Neighbours: one message in two goes out, of one rank of the node.
  EXPECT_DOUBLE_EQ(time.all_gather_by_ring({4, 1}, 40), 3 * (7 + 10.0 / 20));
  // Every second rank: each message goes out, two from a node at once.
  EXPECT_DOUBLE_EQ(time.all_gather_by_ring({4, 2}, 40), 3 * (7 + 2 * 10.0 / 20));
  EXPECT_DOUBLE_EQ(time.all_gather_by_doubling({4, 1}, 40), (2 + 1) + (7 + 2 * 20.0 / 20));
  // In a tree the second round goes out, from one rank of each node; up and down.
  EXPECT_DOUBLE_EQ(time.all_reduce_by_tree({4, 1}, 40), 2 * ((2 + 4) + (7 + 40.0 / 20)) + 2 * 40.0 / 5);
  EXPECT_DOUBLE_EQ(time.all_gather_by_doubling({4, 2}, 40), (7 + 2 * 10.0 / 20) + (7 + 2 * 20.0 / 20));
  EXPECT_DOUBLE_EQ(time.all_to_all({4, 1}, 40), 7 + 0.25 + 2 * 2 * 10.0 / 20);
  // Pairs within nodes do not meet the link.
  EXPECT_DOUBLE_EQ(time.all_gather({2, 1}, 40), 2 + 2);
}

TEST(CollectiveTime, RanksOfAProcessorTakeTurns) {
  MachineModel machine = free_machine();
  const double alone = CollectiveTime(machine, 4).all_reduce({4, 1}, 1000);
  machine.processors_per_node = 2;
  EXPECT_DOUBLE_EQ(CollectiveTime(machine, 4).all_reduce({4, 1}, 1000), 2 * alone);
  // In a tree one rank sends and then two, while the others leave them the processor.
  machine.processors_per_node = 1;
  EXPECT_DOUBLE_EQ(CollectiveTime(machine, 4).all_reduce_by_tree({4, 1}, 40),
                   2 * ((2 + 4) + 2 * (2 + 4)) + (1 + 2) * 40.0 / 5);
}

TEST(CollectiveTime, GrowsWithBytesAndRanks) {
  const MachineModel machine = free_machine();
  const CollectiveTime time(machine, 4096);
  for (const auto collective : {&CollectiveTime::all_reduce, &CollectiveTime::all_gather,
                                &CollectiveTime::reduce_scatter, &CollectiveTime::all_to_all}) {
    EXPECT_EQ((time.*collective)({1, 1}, 1e6), 0);
    for (std::int64_t ranks = 2; ranks <= 2048; ranks *= 2) {
      EXPECT_LT((time.*collective)({ranks, 1}, 1e6), (time.*collective)({ranks, 1}, 2e6)) << ranks;
      EXPECT_LT((time.*collective)({ranks, 1}, 1e6), (time.*collective)({2 * ranks, 1}, 1e6)) << ranks;
    }
  }
}

TEST(TimePlan, CountsTheProductsOfModelSize) {
  const Recipe recipe = small_recipe();
  MachineModel machine = free_machine();
  machine.products.operations_per_second = machine.grouped_products.operations_per_second = 1;
  const ParameterCount active = count_active_parameters(recipe.model);
  const double parameters = static_cast<double>(active.attention + active.router + active.experts +
                                                active.shared_experts + active.dense_mlp + active.lm_head);
  const double tokens = 16 * 128;
  EXPECT_NEAR(plan_time(recipe, 1, machine).computing_seconds(), 6 * parameters * tokens,
              1e-9 * 6 * parameters * tokens);
  // Recomputation goes through the blocks once more, and not through the head; so does a pass that counts.
  const double once_more = 2 * (parameters - static_cast<double>(active.lm_head)) * tokens;
  Recipe again = recipe, counting = recipe;
  again.training.recompute = Recompute::block;
  counting.model.moe.balance = {{.scope = BalanceScope::global_batch, .estimator = Estimator::exact}};
  for (const Recipe& longer : {again, counting})
    EXPECT_NEAR(plan_time(longer, 1, machine).computing_seconds(), 6 * parameters * tokens + once_more, 1e-3);
}

TEST(TimePlan, CountsAttentionAndPasses) {
  const Recipe recipe = small_recipe();
  MachineModel machine = free_machine();
  machine.attention_operations_per_second = 1;
  // 3 layers, 16 sequences, 4 heads of 8; blocks of 64 queries see 64 and 128 keys.
  const double scores = 64 * 64 + 64 * 128;
  EXPECT_EQ(attention_scores(128), scores);
  EXPECT_NEAR(plan_time(recipe, 1, machine).computing_seconds(), 3 * 16 * 4 * scores * (4 + 10) * 8, 1e-3);

  machine = free_machine();
  machine.optimizer_bytes_per_second = 1;
  EXPECT_NEAR(plan_time(recipe, 1, machine).computing_seconds(),
              8.0 * 4 * static_cast<double>(count_parameters(recipe.model).total()), 1e-3);

  machine = free_machine();
  machine.exponentials_per_second = 1;
  // Routers of 8, the chosen and the shared experts of 16, a dense 40, and 48 logits; both ways.
  EXPECT_NEAR(plan_time(recipe, 1, machine).computing_seconds(),
              2 * 16 * 128 * (2 * (8 + (2 + 1) * 16) + 40 + 48), 1e-3);
  // With pools the routers' once more, forward alone.
  const double without = plan_time(recipe, 1, machine).computing_seconds();
  Recipe pools = recipe;
  pools.model.moe.router.pool = {.minimum = 2, .maximum = 8, .evaluation = 2};
  EXPECT_NEAR(plan_time(pools, 1, machine).computing_seconds() - without, 16 * 128 * 2 * 8, 1e-3);
}

TEST(TimePlan, PoolsAreJoinedOverTensorRanksAlone) {
  Recipe recipe = small_recipe();
  recipe.parallel = {.tensor = 2};
  Recipe pools = recipe;
  pools.model.moe.router.pool = {.minimum = 2, .maximum = 8, .evaluation = 2};
  MachineModel machine = free_machine();
  machine.ranks_per_node = 8;
  machine.processors_per_node = 8;
  const auto statistics = [&](const Recipe& one, int ranks) {
    return seconds_of(plan_time(one, ranks, machine).network, "statistics");
  };
  EXPECT_GT(statistics(pools, 4), statistics(recipe, 4));
  EXPECT_EQ(plan_network(pools, 4).statistics - plan_network(recipe, 4).statistics,
            static_cast<double>(plan_layout(recipe, 4).micro_steps * 2 * 8 * 8));  // 2 layers, 8 experts
  recipe.parallel = pools.parallel = {};
  EXPECT_EQ(statistics(pools, 4), statistics(recipe, 4));
}

TEST(TimePlan, SharedProcessorsAreSlower) {
  Recipe recipe = small_recipe();
  MachineModel machine = free_machine();
  machine.products.operations_per_second = 1e9;
  const auto computing = [&](int ranks) { return plan_time(recipe, ranks, machine).computing_seconds(); };
  const double one = computing(1);
  EXPECT_NEAR(computing(4), one / 4, 1e-12);
  machine.processors_per_node = 1;
  EXPECT_NEAR(computing(4), one, 1e-12) << "four ranks on one processor are no faster than one";
  machine.processors_per_node = 4;
  recipe.training.threads = 0;
  EXPECT_EQ(processors_of_rank(recipe, 1, machine), 4);
  EXPECT_NEAR(computing(1), one / 4, 1e-12);
  machine.call_seconds = 1e-5;
  EXPECT_GT(computing(1), one / 4 + 100 * machine.call_seconds) << "what a call costs is not shared out";
}

TEST(TimePlan, AddsUpAndFollowsTheNetwork) {
  Recipe recipe = small_recipe();
  recipe.parallel = {.tensor = 2, .expert = 4, .sequence = true};
  MachineModel machine = free_machine();
  machine.ranks_per_node = 8;
  machine.processors_per_node = 8;
  machine.products.operations_per_second = 1e6;
  const TimePlan plan = plan_time(recipe, 8, machine);
  double sum = 0;
  for (const auto& parts : {plan.computing, plan.network})
    for (const NamedSeconds& part : parts) {
      EXPECT_GE(part.seconds, 0) << part.name;
      sum += part.seconds;
    }
  EXPECT_DOUBLE_EQ(plan.seconds(), sum);
  EXPECT_EQ(plan.hidden, 0) << "overlap is 0";
  for (const char* purpose : {"gradients", "activations", "dispatch", "combine", "statistics"})
    EXPECT_GT(seconds_of(plan.network, purpose), 0) << purpose;
  EXPECT_EQ(seconds_of(plan.network, "parameters"), 0);

  // Experts are replicated by 8 / 4 ranks, so half as fast a network takes longer, and zero gathers.
  MachineModel slow = machine;
  slow.within_node.bytes_per_second /= 2;
  EXPECT_GT(plan_time(recipe, 8, slow).network_seconds(), plan.network_seconds());
  Recipe sharded = recipe;
  sharded.parallel.zero = 1;
  EXPECT_GT(seconds_of(plan_time(sharded, 8, machine).network, "parameters"), 0);

  MachineModel overlapping = machine;
  overlapping.overlap = 1;
  const TimePlan hiding = plan_time(recipe, 8, overlapping);
  EXPECT_GT(hiding.hidden, 0);
  EXPECT_LT(hiding.hidden, seconds_of(hiding.network, "gradients") + seconds_of(hiding.network, "dispatch"));

  machine.nonblocking_all_reduce = "tree";
  EXPECT_GT(seconds_of(plan_time(recipe, 8, machine).network, "gradients"),
            seconds_of(plan.network, "gradients"));
}

TEST(TimePlan, OneRankSendsNothing) {
  const TimePlan plan = plan_time(small_recipe(), 1, free_machine());
  EXPECT_EQ(plan.network_seconds(), 0);
}

TEST(TimePlan, RefusesWhatTheMachineDoesNotSay) {
  Recipe recipe = small_recipe();
  MachineModel machine = free_machine();
  machine.between_nodes = {};
  EXPECT_NO_THROW(plan_time(recipe, 4, machine));
  EXPECT_THROW(plan_time(recipe, 8, machine), Error);
  machine.within_node = {};
  EXPECT_THROW(plan_time(recipe, 2, machine), Error);
  EXPECT_NO_THROW(plan_time(recipe, 1, machine));
  recipe.training.precision = NumberFormat::bf16;
  EXPECT_THROW(plan_time(recipe, 1, free_machine()), Error);
}

TEST(Machine, ComesBackFromYaml) {
  MachineModel machine = free_machine();
  machine.name = "two: nodes # of mine";
  machine.overlap = 0.25;
  machine.call_seconds = 1.25e-6;
  machine.nonblocking_all_reduce = "tree";
  const std::string text = to_yaml(machine);
  EXPECT_EQ(to_yaml(parse_machine(text, "here")), text);
  EXPECT_EQ(parse_machine(text, "here").between_nodes.latency_seconds, 7);
  machine.within_node = machine.between_nodes = {};
  const MachineModel alone = parse_machine(to_yaml(machine), "here");
  EXPECT_EQ(alone.within_node.bytes_per_second, 0);
  EXPECT_EQ(alone.name, "two: nodes # of mine");
}

TEST(Machine, BadDescriptionsGetASentence) {
  const std::string good = to_yaml(free_machine());
  const auto complaint = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    try {
      parse_machine(text, "here.yaml");
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::request);
      return std::string(error.what());
    }
    return std::string("no complaint");
  };
  EXPECT_NE(complaint("precision", "precison").find("here.yaml:2: precison: there is no such key"),
            std::string::npos);
  EXPECT_NE(complaint("  call_seconds: 0", "  # 0").find("passes.call_seconds is missing"),
            std::string::npos);
  EXPECT_NE(complaint("fp32", "fp31").find("fp31"), std::string::npos);
  EXPECT_NE(complaint("overlap: 0", "overlap: 1.5").find("1.5 came"), std::string::npos);
  EXPECT_NE(complaint("overlap: 0", "overlap: much").find("'much' came"), std::string::npos);
  EXPECT_NE(complaint("overlap: 0", "overlap: [0]").find("expected a number"), std::string::npos);
  EXPECT_NE(complaint("processors_per_node: 4", "processors_per_node: 1.5").find("whole number"),
            std::string::npos);
  EXPECT_THROW(load_machine("/nowhere/machine.yaml"), Error);
}

}  // namespace
}  // namespace conclave
