// Pools of experts by document: documents as attention sees them, how pools are drawn, the published rule of
// EMO in plain loops, gradients, and documents that lie across ranks. That whole training steps agree on
// every layout is shown by tests/launch/parallel_layout_test.cpp.
#include "layers/moe/methods/document_pools.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <thread>

#include "framework/autograd/ops/elementwise.h"
#include "layers/moe/objectives.h"
#include "layers/moe/router.h"
#include "tests/framework/autograd/gradient_check.h"
#include "tests/layers/moe/thread_communicator.h"

namespace conclave {
namespace {

using Numbers = std::vector<double>;

/// Rows of 8: documents of 3 and 5 tokens; of 8; of 1 and 4 and three of padding.
Batch three_sequences() {
  Batch batch;
  batch.sequences = 3;
  batch.length = 8;
  batch.tokens = {1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, -1, -1, -1};
  batch.targets.assign(24, -1);
  batch.document_start = {0, 0, 0, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 5, 6, 7};
  return batch;
}

ModelInput input_of(const Batch& batch, std::int64_t step = 4, std::int64_t first_sequence = 16) {
  ModelInput input = to_device(batch);
  input.draws = {.seed = 11, .step = step, .first_sequence = first_sequence};
  return input;
}

std::vector<std::int32_t> rows_of(const DocumentPools& pools, const ModelInput& input) {
  return pools.documents_of(input).to_host<std::int32_t>();
}

TEST(Documents, AreRunsOfRealTokensThatAttentionSeesAsOne) {
  const ModelInput input = to_device(three_sequences());
  const DocumentPools pools({.minimum = 2, .maximum = 2, .evaluation = 6}, "router");
  EXPECT_EQ(rows_of(pools, input),
            (std::vector<std::int32_t>{0, 3, 6, 3, 8, 6, 8, 16, 6, 16, 17, 6, 17, 21, 6}));
  EXPECT_EQ((*input.documents)[1].ordinal, 1);
  EXPECT_EQ((*input.documents)[4].sequence, 2);
  EXPECT_EQ((*input.documents)[4].ordinal, 1);
  // The second of three ranks: the document of the middle row alone; of two: it is cut.
  EXPECT_EQ(rows_of(pools, shard_of(input, 1, 3)), (std::vector<std::int32_t>{0, 8, 6}));
  EXPECT_EQ(rows_of(pools, shard_of(input, 1, 2)), (std::vector<std::int32_t>{0, 4, 6, 4, 5, 6, 5, 9, 6}));

  // Without the mask a row is one document; of padding alone there is none.
  Batch whole = three_sequences();
  std::fill_n(whole.document_start.begin(), 8, 0);
  std::fill_n(whole.tokens.begin() + 8, 8, -1);
  EXPECT_EQ(rows_of(pools, to_device(whole)), (std::vector<std::int32_t>{0, 8, 6, 16, 17, 6, 17, 21, 6}));
  std::fill(whole.tokens.begin(), whole.tokens.end(), -1);
  EXPECT_TRUE(rows_of(pools, to_device(whole)).empty());
}

TEST(Draws, AreUniformFromMinimumToMaximum) {
  const DocumentPools pools({.minimum = 3, .maximum = 12, .evaluation = 5}, "model.layers.1.mlp");
  std::vector<double> seen(16);
  constexpr int draws = 20000;
  for (int i = 0; i < draws; ++i) {
    const DocumentSpan document{.sequence = i % 4, .ordinal = i / 4 % 5};
    const DrawPlace place{.seed = 1, .step = i / 100, .first_sequence = i / 20 % 5 * 4};
    ++seen[static_cast<std::size_t>(pools.size_of(document, place))];
    EXPECT_EQ(pools.size_of(document, {}), 5) << "outside of training";
  }
  double chi_square = 0;
  for (std::size_t size = 0; size < seen.size(); ++size) {
    if (size < 3 || size > 12) {
      EXPECT_EQ(seen[size], 0) << size;
      continue;
    }
    const double expected = draws / 10.0;
    chi_square += (seen[size] - expected) * (seen[size] - expected) / expected;
  }
  // 9 degrees of freedom: between the 0.1 percent points of both sides.
  EXPECT_GT(chi_square, 1.15);
  EXPECT_LT(chi_square, 27.88);
}

TEST(Draws, HangOnSeedStepLayerSequenceAndDocumentAndOnNothingElse) {
  const PoolRecipe recipe{.minimum = 1, .maximum = 1000000, .evaluation = 1};
  const DocumentPools pools(recipe, "model.layers.1.mlp"), other_layer(recipe, "model.layers.2.mlp");
  const DocumentSpan document{.begin = 5, .end = 9, .sequence = 2, .ordinal = 3};
  const DrawPlace place{.seed = 1, .step = 7, .first_sequence = 8};
  const std::int64_t size = pools.size_of(document, place);
  const auto differs = [&](std::int64_t other) { EXPECT_NE(size, other); };
  differs(other_layer.size_of(document, place));
  differs(pools.size_of(document, DrawPlace{2, 7, 8}));
  differs(pools.size_of(document, DrawPlace{1, 8, 8}));
  differs(pools.size_of(document, DrawPlace{1, 7, 9}));
  differs(pools.size_of({.begin = 5, .end = 9, .sequence = 3, .ordinal = 3}, place));
  differs(pools.size_of({.begin = 5, .end = 9, .sequence = 2, .ordinal = 4}, place));
  // The same sequence of the step in a micro-batch that begins elsewhere; the same document cut otherwise.
  EXPECT_EQ(size, pools.size_of({.begin = 1, .end = 2, .sequence = 0, .ordinal = 3}, DrawPlace{1, 7, 10}));
}

constexpr std::int64_t tokens = 24, experts = 9, top_k = 2;

/// The published rule on logits [24, 9] of three_sequences(): arXiv 2605.06663 in plain loops.
struct Published {
  std::vector<std::int32_t> chosen = std::vector<std::int32_t>(tokens * top_k, -1);
  Numbers weights = Numbers(tokens * top_k), p = Numbers(tokens * experts);
  std::vector<std::vector<bool>> pools;  // [documents, experts]
  double balance = 0, z = 0;
};

Numbers softmax_of(const double* logits, const std::vector<bool>& pool) {
  Numbers p(experts);
  double total = 0;
  for (std::size_t i = 0; i < p.size(); ++i) total += p[i] = pool[i] ? std::exp(logits[i]) : 0;
  for (double& value : p) value /= total;
  return p;
}

Published published(const Numbers& logits, const std::vector<std::vector<std::int64_t>>& documents,
                    const std::vector<std::int64_t>& sizes) {
  Published rule;
  Numbers counts(experts), means(experts);
  double real = 0;
  for (std::size_t d = 0; d < documents.size(); ++d) {
    const std::vector<bool> all(experts, true);
    Numbers sums(experts);
    for (const std::int64_t t : documents[d]) {
      const Numbers p = softmax_of(logits.data() + t * experts, all);
      for (std::size_t i = 0; i < p.size(); ++i) sums[i] += p[i];
    }
    std::vector<std::size_t> order(experts);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return sums[a] > sums[b]; });
    std::vector<bool> pool(experts);
    for (std::int64_t i = 0; i < std::min(sizes[d], experts); ++i)
      pool[order[static_cast<std::size_t>(i)]] = true;
    rule.pools.push_back(pool);
    for (const std::int64_t t : documents[d]) {
      const Numbers p = softmax_of(logits.data() + t * experts, pool);
      std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a] > p[b]; });
      double total = 0;
      for (std::size_t i = 0; i < p.size(); ++i) {
        rule.p[static_cast<std::size_t>(t * experts) + i] = p[i];
        means[i] += p[i];
        total += pool[i] ? std::exp(logits[static_cast<std::size_t>(t * experts) + i]) : 0;
      }
      for (std::size_t k = 0; k < top_k; ++k) {
        rule.chosen[static_cast<std::size_t>(t * top_k) + k] = static_cast<std::int32_t>(order[k]);
        rule.weights[static_cast<std::size_t>(t * top_k) + k] = p[order[k]];
        ++counts[order[k]];
      }
      rule.z += std::log(total) * std::log(total);
      ++real;
    }
  }
  for (std::size_t i = 0; i < experts; ++i)
    rule.balance += static_cast<double>(experts) / top_k * counts[i] / real * means[i] / real;
  rule.z /= real;
  return rule;
}

std::vector<std::vector<std::int64_t>> documents_of(const ModelInput& input) {
  std::vector<std::vector<std::int64_t>> documents;
  for (const DocumentSpan& document : *input.documents) {
    documents.emplace_back(static_cast<std::size_t>(document.end - document.begin));
    std::iota(documents.back().begin(), documents.back().end(), document.begin);
  }
  return documents;
}

/// Routes logits that the pools of some recipe have masked.
Routing route_in(const PoolRecipe& pool, Tape& tape, const Variable& logits, const ModelInput& input,
                 const RouteRule& rule = {}, Communicator* ranks = nullptr) {
  const auto self = self_communicator();
  class Given final : public Scores {
   public:
    explicit Given(const Variable& logits) : logits_(logits) {}
    Variable of(Tape&, const RouterInput&) const override { return logits_; }

   private:
    Variable logits_;
  };
  ComposedRouter::Steps steps;
  steps.scores = std::make_unique<Given>(logits);
  if (pool.maximum > 0) steps.masks.push_back(pool_mask({pool, "router"}));
  steps.selection = std::make_unique<TopK>(top_k, rule);
  steps.weights = rule;
  return ComposedRouter(std::move(steps)).route(tape, {{}, input, ranks != nullptr ? *ranks : *self});
}

Tensor logits_of(std::uint64_t trial) {
  return test::normal_tensor("logits" + std::to_string(trial), {tokens, experts}, 2);
}

TEST(Pools, AreThoseOfThePublishedRule) {
  // One more than there are, as if one expert were shared.
  const PoolRecipe pool{.minimum = 2, .maximum = experts + 1, .evaluation = 4};
  const DocumentPools pools(pool, "router");
  std::map<std::int64_t, int> sizes_met;
  for (std::uint64_t trial = 0; trial < 20; ++trial) {
    ModelInput input = input_of(three_sequences(), static_cast<std::int64_t>(trial));
    if (trial % 5 == 4) input.draws.reset();
    const Tensor logits = logits_of(trial);
    std::vector<std::int64_t> sizes;
    for (const DocumentSpan& document : *input.documents) {
      sizes.push_back(pools.size_of(document, input.draws));
      ++sizes_met[sizes.back()];
    }
    const Published expected = published(logits.to_host<double>(), documents_of(input), sizes);
    Tape tape;
    const Routing routing =
        route_in(pool, tape, {logits, Gradient::of(logits)}, input, {.renormalise = false});
    EXPECT_EQ(routing.experts.to_host<std::int32_t>(), expected.chosen) << "trial " << trial;
    const Numbers weights = routing.weights.value.to_host<double>(),
                  p = routing.probabilities.to_host<double>();
    for (std::size_t i = 0; i < weights.size(); ++i) EXPECT_NEAR(weights[i], expected.weights[i], 1e-14);
    for (std::size_t i = 0; i < p.size(); ++i) EXPECT_NEAR(p[i], expected.p[i], 1e-14);

    // The losses, through the balance loss of a whole step.
    MoeRecipe moe;
    moe.num_experts = experts;
    moe.num_experts_per_tok = top_k;
    moe.router.z_loss_coefficient = 0.001;
    moe.balance = {{.scope = BalanceScope::data_parallel, .coefficient = 0.1}};
    const auto self = self_communicator();
    Objectives objectives(moe, 1, *self);
    Objectives::Step balance = objectives.begin_step(0, 21);
    EXPECT_NEAR(balance.begin_micro_step({routing.statistics}).objective(tape).value.item(),
                0.1 * expected.balance + 0.001 * expected.z, 1e-13);
  }
  EXPECT_GE(sizes_met.size(), 8u) << "hardly any size was drawn";
}

// The objective of a router with pools, of everything that carries a gradient.
Variable objective_of(const PoolRecipe& pool, Tape& tape, const Variable& logits, const ModelInput& input) {
  const Routing routing = route_in(pool, tape, logits, input, {.renormalise = false});
  const Variable weights = weighted_sum(tape, routing.weights, test::normal_tensor("w", {tokens, top_k}));
  const Variable sums =
      weighted_sum(tape, routing.statistics.probability_sums, test::normal_tensor("p", {3, experts}, 0.3));
  const Variable z = weighted_sum(tape, routing.statistics.z_sum, test::normal_tensor("z", {1}, 0.1));
  return add_losses(tape, {weights, sums, z});
}

TEST(Pools, GradientsAreThoseOfDifferencesAndReachNothingOutside) {
  const PoolRecipe pool{.minimum = 2, .maximum = 5, .evaluation = 4};
  for (std::uint64_t trial = 0; trial < 3; ++trial) {
    const ModelInput input = input_of(three_sequences(), static_cast<std::int64_t>(trial));
    const auto errors = test::check_gradient(
        [&](Tape& tape, const std::vector<Variable>& in) { return objective_of(pool, tape, in[0], input); },
        {logits_of(trial)}, test::Seed::one);
    EXPECT_LT(errors.derivative, 1e-7) << errors.where_derivative;
    EXPECT_LT(errors.accumulation, 1e-12) << errors.where_accumulation;
  }
}

template <class T>
void expect_nothing_outside(const Tensor& logits) {
  const PoolRecipe pool{.minimum = 2, .maximum = 5, .evaluation = 4};
  const ModelInput input = input_of(three_sequences());
  Tape tape;
  const Variable scores{logits, Gradient::of(logits)};
  const Routing routing = route_in(pool, tape, scores, input, {.renormalise = true});
  routing.weights.gradient.add(Tensor::from(std::vector<T>(tokens * top_k, T(0.7)), {tokens, top_k}));
  routing.statistics.probability_sums.gradient.add(Tensor::from(Numbers(3 * experts, 0.3), {3, experts}));
  routing.statistics.z_sum.gradient.add(Tensor::from(Numbers{0.1}, {1}));
  tape.backward();
  const std::vector<T> gradient = scores.gradient.take().to_host<T>(), p = routing.probabilities.to_host<T>();
  std::int64_t outside = 0, inside = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0) {
      EXPECT_EQ(gradient[i], 0) << "leaks to token " << i / experts << ", expert " << i % experts;
      ++outside;
    } else {
      EXPECT_NE(gradient[i], 0);
      ++inside;
    }
  }
  std::int64_t in_pools = 0;
  const auto rows = rows_of(DocumentPools(pool, "router"), input);
  for (std::size_t d = 0; d < rows.size(); d += 3) in_pools += (rows[d + 1] - rows[d]) * rows[d + 2];
  EXPECT_EQ(inside, in_pools);
  EXPECT_EQ(outside, tokens * experts - in_pools);
}

TEST(Pools, HaveExactlyZeroOutsideInBothTypes) {
  expect_nothing_outside<double>(logits_of(0));
  const Numbers wide = logits_of(0).to_host<double>();
  expect_nothing_outside<float>(
      Tensor::from(std::vector<float>(wide.begin(), wide.end()), {tokens, experts}));
}

TEST(Pools, OfAllExpertsChangeNothing) {
  const PoolRecipe all{.minimum = experts, .maximum = experts, .evaluation = experts};
  const ModelInput input = input_of(three_sequences());
  const Tensor logits = logits_of(1);
  Tape tape;
  const Routing plain = route_in({}, tape, {logits, {}}, input),
                pooled = route_in(all, tape, {logits, {}}, input);
  EXPECT_EQ(plain.experts.to_host<std::int32_t>(), pooled.experts.to_host<std::int32_t>());
  EXPECT_EQ(plain.weights.value.to_host<double>(), pooled.weights.value.to_host<double>());
}

TEST(Pools, NeedSoftmaxScoresAndDocuments) {
  MoeRecipe moe;
  moe.router.pool = {.minimum = 2, .maximum = 2, .evaluation = 2};
  moe.router.kind = RouterKind::sigmoid;
  EXPECT_THROW(compose_router(nullptr, "router", moe), Error);
  moe.router.kind = RouterKind::softmax;
  EXPECT_NO_THROW(compose_router(nullptr, "router", moe));
  ModelInput input = input_of(three_sequences());
  input.documents = nullptr;
  EXPECT_THROW(DocumentPools(moe.router.pool, "router").documents_of(input), Error);
}

/// Experts of all tokens, routed on so many threads that share the micro-batch.
std::vector<std::int32_t> chosen_on(int ranks, const Tensor& logits, test::Rule reduce = test::sum) {
  const PoolRecipe pool{.minimum = 2, .maximum = 5, .evaluation = 4};
  const ModelInput input = input_of(three_sequences());
  test::ThreadGroup group(ranks, std::move(reduce));
  std::vector<std::vector<std::int32_t>> of_rank(static_cast<std::size_t>(ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      test::ThreadCommunicator communicator(group, rank);
      const ModelInput shard = shard_of(input, rank, ranks);
      const std::int64_t share = tokens / ranks;
      Tape tape(Tape::Mode::forward_only);
      of_rank[static_cast<std::size_t>(rank)] =
          route_in(pool, tape, {logits.slice(rank * share, (rank + 1) * share), {}}, shard, {}, &communicator)
              .experts.to_host<std::int32_t>();
    });
  for (std::thread& thread : threads) thread.join();
  std::vector<std::int32_t> all;
  for (const auto& part : of_rank) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// Shares of 12, 8, 6, 4, 3, 2 and 1 tokens: documents across two and more ranks, ranks inside one document,
// ranks of padding alone.
TEST(Pools, OfDocumentsAcrossRanksAreThoseOfOneRank) {
  bool not_joined_differs = false;
  for (std::uint64_t trial = 0; trial < 5; ++trial) {
    const Tensor logits = logits_of(trial);
    const auto expected = chosen_on(1, logits);
    for (const int ranks : {2, 3, 4, 6, 8, 12, 24})
      EXPECT_EQ(chosen_on(ranks, logits), expected) << ranks << " ranks, trial " << trial;
    // Were nothing joined, it would show.
    not_joined_differs |= chosen_on(4, logits, [](const auto& all, int rank, DType) {
                            return all[static_cast<std::size_t>(rank)];
                          }) != expected;
  }
  EXPECT_TRUE(not_joined_differs);
}

TEST(Pools, TakeTheLowestExpertsWhereSumsTieButForTheLastDigits) {
  // Two experts are alike in all but the last digits, as another layout might round them.
  Numbers values(tokens * experts);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = i % experts == 4 ? 1e-13 : 0;
  const PoolRecipe pool{.minimum = 4, .maximum = 4, .evaluation = 4};
  const ModelInput input = input_of(three_sequences());
  Tape tape;
  const Tensor logits = Tensor::from(values, {tokens, experts});
  const Numbers p = route_in(pool, tape, {logits, {}}, input).probabilities.to_host<double>();
  for (std::size_t i = 0; i < experts; ++i) EXPECT_EQ(p[i] > 0, i < 4) << "expert " << i;
}

}  // namespace
}  // namespace conclave
