// A dry run against a real step, and against itself: a toy layer changes it by what the toy does, a few
// blocks and micro-batches say what many do, and what is too large is refused with a sentence.
#include "launch/plan/dry_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "framework/base/allocation_size.h"
#include "launch/plan/few_steps.h"
#include "launch/plan/plan.h"
#include "parallel/counting.h"
#include "tests/launch/example.h"

namespace conclave {
namespace {

double bytes(const DryStep& step, Purpose purpose) {
  return step.traffic[static_cast<std::size_t>(purpose)];
}

/// A router that keeps a buffer until its backward and adds it up over all ranks.
class ToyRouter final : public Router {
 public:
  static constexpr std::int64_t columns = 7;
  ToyRouter(std::unique_ptr<Router> inner, std::shared_ptr<Communicator> ranks)
      : inner_(std::move(inner)), ranks_(std::move(ranks)) {}

  Routing route(Tape& tape, const RouterInput& input) const override {
    const Tensor& x = input.x.value;
    const Tensor buffer = Tensor::zeros({x.dim(0), columns}, DType::float32, x.device());
    ranks_->all_reduce(buffer, ReduceOp::sum, Purpose::combine);
    tape.record("toy", [buffer] {});
    return inner_->route(tape, input);
  }

 private:
  std::unique_ptr<Router> inner_;
  std::shared_ptr<Communicator> ranks_;
};

TEST(DryRun, AToyLayerCostsItsBufferAndItsCollective) {
  Recipe recipe = example_recipe();
  recipe.parallel.expert = 2;
  const auto world = counting_communicator(0, 8);
  const DryStep plain = dry_step(recipe, world, even_choice());
  const DryStep toy =
      dry_step(recipe, world, even_choice(),
               {.router = [&](ParameterSet& parameters, const std::string& name, const ModelRecipe& model,
                              const MethodStates& states) {
                 return std::make_unique<ToyRouter>(make_router(parameters, name, model, states), world);
               }});
  const LayoutPlan layout = plan_layout(recipe, 8);
  const double buffer = static_cast<double>(layout.tokens_per_shard * ToyRouter::columns * 4);
  const auto layers = static_cast<double>(recipe.model.num_hidden_layers);
  EXPECT_EQ(bytes(toy, Purpose::combine) - bytes(plain, Purpose::combine),
            static_cast<double>(layout.micro_steps) * layers * buffer);
  EXPECT_EQ(toy.peak - plain.peak,
            layers * static_cast<double>(allocation_size(static_cast<std::size_t>(buffer))));
  for (const Purpose purpose : {Purpose::gradients, Purpose::parameters, Purpose::activations,
                                Purpose::dispatch, Purpose::statistics})
    EXPECT_EQ(bytes(toy, purpose), bytes(plain, purpose)) << name_of(purpose);
  EXPECT_EQ(toy.states, plain.states);
}

void expect_equal(const DryStep& few, const DryStep& all) {
  for (int i = 0; i < purposes; ++i)
    EXPECT_DOUBLE_EQ(few.traffic[static_cast<std::size_t>(i)], all.traffic[static_cast<std::size_t>(i)])
        << name_of(static_cast<Purpose>(i));
  EXPECT_DOUBLE_EQ(few.parameters, all.parameters);
  EXPECT_DOUBLE_EQ(few.gradients, all.gradients);
  EXPECT_NEAR(few.moments, all.moments, 0.001 * all.moments);
  EXPECT_NEAR(few.peak - few.states, all.peak - all.states, 0.005 * (all.peak - all.states));
  const auto sum = [](const DryStep& step, double AmountOfWork::*what) {
    return std::accumulate(step.work.begin(), step.work.end(), 0.0,
                           [&](double so_far, const auto& item) { return so_far + item.second.*what; });
  };
  for (const auto what : {&AmountOfWork::calls, &AmountOfWork::bytes, &AmountOfWork::operations})
    EXPECT_NEAR(sum(few, what), sum(all, what), 2e-6 * sum(all, what)) << "but for gaps between shards";
}

TEST(DryRun, AFewMicroBatchesSayWhatManyDo) {
  Recipe recipe = example_recipe();
  recipe.parallel = {.tensor = 2, .expert = 2};
  recipe.training.global_batch_size = 4 * 4 * 12;
  for (const std::vector<BalanceRecipe>& balance :
       {std::vector<BalanceRecipe>{{.scope = BalanceScope::global_batch, .estimator = Estimator::exact}},
        std::vector<BalanceRecipe>{{.scope = BalanceScope::group, .balance_batch_size = 48},
                                   {.scope = BalanceScope::shuffle}},
        std::vector<BalanceRecipe>{{.scope = BalanceScope::data_parallel}}}) {
    SCOPED_TRACE(balance[0].scope);
    recipe.model.moe.balance = balance;
    expect_equal(dry_step_of_few(recipe, 8, even_choice()),
                 dry_step(recipe, counting_communicator(0, 8), even_choice()));
  }
}

TEST(DryRun, AFewBlocksSayWhatManyDo) {
  Recipe recipe = example_recipe();
  recipe.parallel = {.expert = 4, .zero = 1};
  recipe.model.num_hidden_layers = 150;
  recipe.model.moe.first_k_dense_replace = 40;
  for (const Recompute recompute : {Recompute::none, Recompute::block}) {
    SCOPED_TRACE(recompute);
    recipe.training.recompute = recompute;
    expect_equal(dry_step_of_few(recipe, 4, even_choice()),
                 dry_step(recipe, counting_communicator(0, 4), even_choice()));
  }
}

TEST(DryRun, RefusesWithASentenceWhatCannotBeCounted) {
  const auto refusal = [](const std::string& change) {
    return request_error([&] {
      Recipe recipe = example_recipe();
      apply_override(recipe, change);
      plan_memory(recipe, 1);
    });
  };
  EXPECT_NE(refusal("model.num_hidden_layers=1000000").find("1000000 blocks came"), std::string::npos);
  EXPECT_NE(refusal("data.sequence_length=1000000000").find("cannot be planned"), std::string::npos);
  EXPECT_NE(refusal("model.moe.num_experts=100000000").find("cannot be planned"), std::string::npos);
  EXPECT_NE(refusal("model.hidden_size=1000000000").find("cannot be planned"), std::string::npos);
}

TEST(ExpertChoice, EvenGivesEveryRunOfExpertsItsShare) {
  std::vector<std::int32_t> tokens(50), chosen(150), counts(12);
  even_choice()(tokens, 12, chosen);
  for (std::size_t t = 0; t < tokens.size(); ++t) EXPECT_NE(chosen[3 * t], chosen[3 * t + 1]);
  for (const std::int32_t expert : chosen) ++counts[static_cast<std::size_t>(expert)];
  for (const std::int32_t count : counts) EXPECT_NEAR(count, 150.0 / 12, 1);
  EXPECT_NEAR(std::accumulate(counts.begin(), counts.begin() + 6, 0), 75, 1);
}

TEST(ExpertChoice, CrowdedFillsTheFirstExpertsUpToItsBound) {
  std::vector<std::int32_t> tokens(10), chosen(30);
  crowded_choice(4, 2)(tokens, 8, chosen);
  const auto inside = [&] {
    return std::count_if(chosen.begin(), chosen.end(), [](std::int32_t e) { return e == 4 || e == 5; });
  };
  EXPECT_EQ(inside(), 20) << "two of three, as there are two experts";
  crowded_choice(4, 2, 7)(tokens, 8, chosen);
  EXPECT_EQ(inside(), 7);
  for (std::size_t t = 0; t < tokens.size(); ++t)
    EXPECT_EQ(std::set<std::int32_t>(chosen.begin() + static_cast<std::ptrdiff_t>(3 * t),
                                     chosen.begin() + static_cast<std::ptrdiff_t>(3 * t + 3))
                  .size(),
              3u);
}

TEST(CountingDevice, CountsLikeTheCpuAndHoldsIntegersAlone) {
  CountingDevice device({});
  {
    const Tensor large = Tensor::zeros({1000, 1000}, DType::float32, device, MemoryPurpose::gradients);
    const Tensor ids = Tensor::from(std::vector<std::int32_t>(100000, 7), {100000}, device);
    EXPECT_EQ(device.memory_use().live, allocation_size(4000000) + allocation_size(400000));
    EXPECT_EQ(device.asked_for(MemoryPurpose::gradients), 4000000u);
    EXPECT_EQ(ids.to_host<std::int32_t>()[99999], 7);
    EXPECT_EQ(large.clone().to_host<float>()[5], 0);
    EXPECT_EQ(Tensor::from(std::vector<double>{2.5}, {1}, device).item(), 2.5);
  }
  EXPECT_EQ(device.memory_use().live, 0u);
  EXPECT_EQ(device.memory_use().peak, 2 * allocation_size(4000000) + allocation_size(400000));
}

TEST(CountingCommunicator, TheOthersDoWhatThisRankDoes) {
  const auto world = counting_communicator(1, 4);
  const auto pair = world->split({3, 1}, "pair");
  EXPECT_EQ(pair->rank(), 1);
  EXPECT_EQ(pair->size(), 2);
  const Tensor sum = Tensor::from(std::vector<std::int64_t>{5}, {1});
  world->all_reduce(sum, ReduceOp::sum, Purpose::statistics);
  EXPECT_EQ(sum.to_host<std::int64_t>(), (std::vector<std::int64_t>{20}));
  const Tensor all = Tensor::empty({4}, DType::int64);
  pair->all_gather_rows(Tensor::from(std::vector<std::int64_t>{1, 2}, {2}), all, Purpose::statistics);
  EXPECT_EQ(all.to_host<std::int64_t>(), (std::vector<std::int64_t>{1, 2, 1, 2}));
  EXPECT_EQ(exchange_counts(*pair, {8, 9}, Purpose::dispatch), (RowCounts{9, 9}));
  EXPECT_EQ(world->traffic()[Purpose::statistics].bytes, 8 + 16);
}

}  // namespace
}  // namespace conclave
