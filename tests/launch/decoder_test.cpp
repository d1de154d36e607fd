// Generation with a key-value cache: the logits and the greedy tokens are those of computing every text anew.
#include "launch/train/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "framework/base/random.h"
#include "launch/train/model.h"
#include "launch/train/sampler.h"
#include "layers/moe/methods.h"
#include "tests/devices.h"
#include "tests/launch/synthetic.h"

namespace conclave {
namespace {

using Change = std::function<void(ModelRecipe&)>;

/// Shapes of models, each beside its name.
const std::vector<std::pair<std::string, Change>>& shapes() {
  static const std::vector<std::pair<std::string, Change>> all = {
      {"grouped heads, QK-norm over each head, shared experts", [](ModelRecipe&) {}},
      {"as many key-value heads, no QK-norm",
       [](ModelRecipe& m) {
         m.num_key_value_heads = m.num_attention_heads;
         m.qk_norm = false;
       }},
      {"QK-norm over all heads, partial rotary",
       [](ModelRecipe& m) {
         m.qk_norm_over = QkNormOver::all_heads;
         m.partial_rotary_factor = 0.5;
       }},
      {"one key-value head, tied embeddings, weights not renormalised",
       [](ModelRecipe& m) {
         m.num_key_value_heads = 1;
         m.tie_word_embeddings = true;
         m.moe.router.norm_topk_prob = false;
       }},
      {"a dense block first, no shared experts",
       [](ModelRecipe& m) {
         m.moe.first_k_dense_replace = 1;
         m.moe.num_shared_experts = 0;
       }},
      {"dense blocks alone", [](ModelRecipe& m) { m.moe.first_k_dense_replace = m.num_hidden_layers; }},
      {"groups of experts",
       [](ModelRecipe& m) {
         m.moe.router.n_group = 4;
         m.moe.router.topk_group = 2;
       }},
      {"sigmoid with bias, groups and a factor",
       [](ModelRecipe& m) {
         m.moe.router.kind = RouterKind::sigmoid;
         m.moe.router.bias.rate = 0.001;
         m.moe.router.n_group = 2;
         m.moe.router.topk_group = 1;
         m.moe.router.routed_scaling_factor = 2.5;
       }},
      {"a pool of all experts",
       [](ModelRecipe& m) { m.moe.router.pool = {.minimum = 2, .maximum = 6, .evaluation = 8}; }},
  };
  return all;
}

Recipe recipe_of(const Change& change, NumberFormat precision) {
  Recipe recipe = test::tiny_recipe();
  recipe.training.precision = precision;
  change(recipe.model);
  return recipe;
}

/// A model whose selection biases, where it has any, are not zero.
struct AnyModel : Model {
  explicit AnyModel(const Recipe& recipe, Device& device = cpu_device())
      : Model(recipe, Mesh::alone(), device) {
    for (const MethodState& state : feed_forwards.states().all) {
      std::vector<double> values(static_cast<std::size_t>(state.shape.elements()));
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.2 * RandomKey(4).normal(i);
      state.values.copy_from(Tensor::from(values, state.shape));
    }
  }
};

std::vector<std::int32_t> random_tokens(std::uint64_t text, std::size_t count) {
  std::vector<std::int32_t> tokens;
  for (std::size_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<std::int32_t>(RandomKey(8).with(text).below(i, 61)));
  return tokens;
}

std::int32_t most_likely(const std::vector<double>& logits) {
  return sample(logits, static_cast<std::int64_t>(logits.size()), {.temperature = 0}, RandomKey(0), 0);
}

/// The largest difference of two rows, relative to the largest number.
double difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0, most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(b[i]));
    most = std::max(most, std::abs(a[i] - b[i]));
  }
  return a.size() == b.size() && largest > 0 ? most / largest : INFINITY;
}

/// Grows texts of these lengths together, each by as many tokens as `by` says, and holds every row of logits
/// and every token to those of the text computed anew.
void expect_as_computed_anew(const Model& model, std::int64_t window, const std::vector<std::size_t>& lengths,
                             const std::vector<std::size_t>& by, double tolerance) {
  std::vector<std::vector<std::int32_t>> texts;
  std::vector<std::int64_t> longest;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    texts.push_back(random_tokens(i, lengths[i]));
    longest.push_back(static_cast<std::int64_t>(lengths[i] + by[i]) - 1);
  }
  Decoder decoder(model.transformer, window, longest, Cache::on);
  for (std::size_t step = 0; step < *std::max_element(by.begin(), by.end()); ++step) {
    std::vector<Decoder::Context> contexts;
    for (std::size_t i = 0; i < texts.size(); ++i)
      if (step < by[i]) contexts.push_back({i, texts[i]});
    const auto logits = decoder.next_logits(contexts);
    ASSERT_EQ(logits.size(), contexts.size());
    for (std::size_t i = 0; i < contexts.size(); ++i) {
      std::vector<std::int32_t>& text = texts[contexts[i].text];
      const std::vector<double> anew = next_token_logits(model.transformer, text, window);
      ASSERT_LE(difference(logits[i], anew), tolerance)
          << "text " << contexts[i].text << " of " << text.size() << " tokens";
      ASSERT_EQ(most_likely(logits[i]), most_likely(anew));
      text.push_back(most_likely(anew));
    }
  }
}

// Prompts of one token to more than the window of 12, some of which walk across its end. The second and the
// last text end long before the others.
const std::vector<std::size_t> lengths = {1, 5, 9, 12, 17, 3}, growth = {14, 2, 8, 5, 3, 1};

TEST(Decoder, GivesWhatComputingAnewGivesInFp64) {
  for (const auto& [name, change] : shapes()) {
    SCOPED_TRACE(name);
    const Recipe recipe = recipe_of(change, NumberFormat::fp64);
    ASSERT_EQ(looks_at_other_tokens(recipe.model.moe), "");
    expect_as_computed_anew(AnyModel(recipe), 12, lengths, growth, 1e-12);
  }
}

TEST(Decoder, GivesWhatComputingAnewGivesInFp32) {
  for (const auto& [name, change] : shapes()) {
    SCOPED_TRACE(name);
    expect_as_computed_anew(AnyModel(recipe_of(change, NumberFormat::fp32)), 12, lengths, growth, 1e-5);
  }
}

TEST(Decoder, GivesTheSameOnDevices) {
  for (Device* device : test::gpu_devices()) {
    SCOPED_TRACE(device->name());
    const AnyModel model(recipe_of(shapes()[0].second, NumberFormat::fp32), *device);
    expect_as_computed_anew(model, 12, {1, 5, 17, 9}, {3, 2, 1, 5}, 1e-5);
  }
}

TEST(Decoder, TakesMorePromptsThanGoThroughTheModelTogether) {
  const AnyModel model(recipe_of(shapes()[0].second, NumberFormat::fp64));
  expect_as_computed_anew(model, 12, std::vector<std::size_t>(120, 11), std::vector<std::size_t>(120, 2),
                          1e-12);
}

TEST(Decoder, DrawsAsComputingAnewDoes) {
  const AnyModel model(recipe_of(shapes()[0].second, NumberFormat::fp32));
  std::vector<std::int32_t> text = random_tokens(0, 4);
  const std::int64_t longest = 24;
  Decoder decoder(model.transformer, 12, {&longest, 1}, Cache::on);
  const RandomKey key = RandomKey(1234).with("generate");
  std::int64_t unlikely = 0;
  for (std::uint64_t i = 0; i < 20; ++i) {
    const Decoder::Context context{0, text};
    const std::vector<double> cached = decoder.next_logits({&context, 1})[0],
                              anew = next_token_logits(model.transformer, text, 12);
    const std::int32_t token = sample(anew, 61, {.temperature = 0.8}, key, i);
    ASSERT_EQ(sample(cached, 61, {.temperature = 0.8}, key, i), token) << i;
    unlikely += token != most_likely(anew) ? 1 : 0;
    text.push_back(token);
  }
  EXPECT_GT(unlikely, 0);
}

TEST(Decoder, TheCacheTakesTheBytesThatAreToldBefore) {
  for (const NumberFormat precision : {NumberFormat::fp32, NumberFormat::fp64}) {
    const AnyModel model(recipe_of(shapes()[0].second, precision));
    const std::vector<std::int64_t> longest = {3, 12, 200};  // at most the window of 64
    const std::size_t told = Decoder::cache_bytes(model.transformer, 64, longest);
    // Keys and values, 2 layers, 2 heads of 8.
    EXPECT_EQ(told, (3u + 12u + 64u) * 2 * 2 * 2 * 8 * (precision == NumberFormat::fp32 ? 4 : 8));
    const std::size_t before = cpu_device().memory_use().live;
    const Decoder decoder(model.transformer, 64, longest, Cache::on);
    const std::size_t taken = cpu_device().memory_use().live - before;
    EXPECT_GE(taken, told);
    EXPECT_LT(taken, told + 12 * 512);  // of 12 tensors, each rounded up
    const Decoder without(model.transformer, 64, longest, Cache::off);
    EXPECT_EQ(cpu_device().memory_use().live - before, taken);
  }
}

TEST(Decoder, MoreTokensThanAStateHasRoomForAreRefused) {
  const AnyModel model(recipe_of(shapes()[0].second, NumberFormat::fp64));
  SequenceState state = model.transformer.make_state(3);
  const std::vector<std::int32_t> tokens = random_tokens(0, 4);
  const Transformer::Next next{&state, tokens};
  EXPECT_THROW(model.transformer.extend({&next, 1}), Error);
}

TEST(Decoder, MethodsThatLookAtOtherTokensSaySo) {
  MoeRecipe moe = test::tiny_recipe().model.moe;
  EXPECT_EQ(looks_at_other_tokens(moe), "");
  moe.router.pool = {.minimum = 2, .maximum = 6, .evaluation = 3};
  EXPECT_NE(looks_at_other_tokens(moe).find("model.moe.router.pool.evaluation: 3"), std::string::npos);
  moe.router.pool = {};
  moe.capacity_factor = 1.5;
  EXPECT_NE(looks_at_other_tokens(moe).find("model.moe.capacity_factor: 1.5"), std::string::npos);
}

// With the cache, a pool would be chosen from the newest tokens alone: this is why generation goes without.
TEST(Decoder, PoolsNeedAllTokens) {
  const Change pools = [](ModelRecipe& m) {
    m.moe.router.pool = {.minimum = 2, .maximum = 6, .evaluation = 3};
  };
  const AnyModel model(recipe_of(pools, NumberFormat::fp64));
  std::vector<std::int32_t> text = random_tokens(0, 6);
  const std::int64_t longest = 12;
  Decoder cached(model.transformer, 12, {&longest, 1}, Cache::on),
      anew(model.transformer, 12, {&longest, 1}, Cache::off);
  double most = 0;
  for (int i = 0; i < 6; ++i) {
    const Decoder::Context context{0, text};
    const std::vector<double> expected = next_token_logits(model.transformer, text, 12);
    most = std::max(most, difference(cached.next_logits({&context, 1})[0], expected));
    EXPECT_EQ(anew.next_logits({&context, 1})[0], expected);
    text.push_back(most_likely(expected));
  }
  EXPECT_GT(most, 1e-3);
}

}  // namespace
}  // namespace conclave
