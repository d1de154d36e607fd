// The whole model in float64: gradients of every parameter against central differences of the loss, attention
// that stays inside documents, and routing statistics that padding does not touch.
#include "layers/transformer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "framework/autograd/ops/elementwise.h"
#include "layers/moe/moe.h"
#include "layers/moe/objectives.h"
#include "tests/launch/synthetic.h"

namespace conclave {
namespace {

using test::synthetic_batch;
using test::tiny_recipe;

struct TinyModel {
  explicit TinyModel(const Recipe& recipe_of_model, Recompute recompute = Recompute::none)
      : recipe(recipe_of_model),
        transformer(parameters, recipe.model, FeedForwards(recipe.model), recompute) {
    parameters.materialize(DType::float64, 3);
  }
  /// Cross-entropy with its z-loss, balance and router z-loss of one micro-batch.
  double objective(const ModelInput& input, bool differentiate) {
    if (differentiate) parameters.clear_gradients();
    Tape tape(differentiate ? Tape::Mode::record : Tape::Mode::forward_only);
    Objectives objectives(recipe.model.moe, transformer.routers(), *self);
    Objectives::Step step = objectives.begin_step(0, 10);
    const Transformer::Result result = transformer.forward(tape, input);
    Objectives::MicroStep routers = step.begin_micro_step(result.statistics);
    const Variable loss = add_losses(
        tape, {transformer.loss(tape, result.hidden, input, {.loss_scale = 0.1, .z_scale = 0.01}).objective,
               routers.objective(tape)});
    if (differentiate) tape.backward(loss);
    return loss.value.item();
  }
  Recipe recipe;
  std::shared_ptr<Communicator> self = self_communicator();
  ParameterSet parameters;
  Transformer transformer;
};

Recipe variant(int which) {
  Recipe recipe = tiny_recipe();
  recipe.model.moe.balance = {{.scope = BalanceScope::micro_batch, .coefficient = 0.1}};
  if (which == 1) {
    recipe.model.moe.balance.push_back(
        {.scope = BalanceScope::sequence, .coefficient = 0.2, .expert_groups = 4});
    recipe.model.tie_word_embeddings = true;
    recipe.model.qk_norm = false;
    recipe.model.moe.router.norm_topk_prob = false;
  }
  if (which == 2) {
    recipe.model.moe.first_k_dense_replace = 1;
    recipe.model.num_key_value_heads = 4;
    recipe.model.moe.num_shared_experts = 0;
    recipe.model.moe.num_experts_per_tok = 8;  // all of them
  }
  if (which == 3) recipe.model.moe.capacity_factor = 0.7;  // 2 places of an expert in a sequence of 12 tokens
  if (which == 4) {
    recipe.model.qk_norm_over = QkNormOver::all_heads;
    recipe.model.partial_rotary_factor = 0.5;
  }
  if (which == 5) {
    recipe.model.moe.router.norm_topk_prob = false;
    recipe.model.moe.router.pool = {.minimum = 2, .maximum = 6, .evaluation = 3};
  }
  if (which == 6) {
    recipe.model.attention_bias = AttentionBias::all;
    recipe.model.no_rope_layers = {0};
    recipe.model.moe.dense_layers = {1};  // behind one with experts
    recipe.model.rope_scaling = {
        .type = RopeFrequencies::Scaling::llama3, .factor = 8, .original_max_position_embeddings = 64};
  }
  if (which == 7) {
    recipe.model.attention_bias = AttentionBias::qkv;
    recipe.model.qk_norm_after_rope = true;
    recipe.model.rope_scaling = {.type = RopeFrequencies::Scaling::linear, .factor = 4};
  }
  return recipe;
}

/// The input of step 1, so that pools are drawn as in training.
ModelInput training_input(const TinyModel& model, std::int64_t sequences) {
  ModelInput input = to_device(synthetic_batch(model.recipe, 0, 0, sequences));
  input.draws = {.seed = 7, .step = 1, .first_sequence = 0};
  return input;
}

/// Per layer; counts are those before dropping.
std::vector<std::int64_t> dropped_by(const TinyModel& model, const ModelInput& input) {
  Tape tape;  // recording, so that a recomputed block runs in its segment
  std::vector<std::int64_t> dropped;
  for (const RouterStatistics& layer : model.transformer.forward(tape, input).statistics)
    dropped.push_back(layer.others.at(0).values.to_host<std::int64_t>()[0]);
  return dropped;
}

TEST(TransformerModel, GradientOfEveryParameterEqualsDifferences) {
  for (int which = 0; which < 8; ++which) {
    TinyModel model(variant(which));
    const ModelInput input = training_input(model, 2);
    if (which == 3) {
      for (const std::int64_t dropped : dropped_by(model, input)) EXPECT_GT(dropped, 4);
    }
    model.objective(input, true);
    for (const Parameter& parameter : model.parameters.all()) {
      const auto gradient = parameter.gradient.finished().to_host<double>();
      // Along one random direction, with a step small enough that no token changes its experts.
      const RandomKey key = RandomKey(5).with(parameter.name);
      double expected = 0;
      std::vector<double> direction(gradient.size());
      for (std::size_t i = 0; i < gradient.size(); ++i) {
        direction[i] = key.normal(i);
        expected += direction[i] * gradient[i];
      }
      const Tensor original = parameter.value.clone();
      const Tensor along = Tensor::from(direction, parameter.shape);
      constexpr double h = 1e-6;
      kernels_of(along).add_scaled(along, h, parameter.value);
      const double above = model.objective(input, false);
      parameter.value.copy_from(original);
      kernels_of(along).add_scaled(along, -h, parameter.value);
      const double below = model.objective(input, false);
      parameter.value.copy_from(original);
      EXPECT_NEAR((above - below) / (2 * h), expected, 1e-6 * std::max(1.0, std::abs(expected)))
          << parameter.name << " in variant " << which;
    }
  }
}

TEST(TransformerModel, RecomputationChangesNothing) {
  for (const int which : {0, 5}) {
    TinyModel plain(variant(which)), again(variant(which), Recompute::block);
    const ModelInput input = training_input(plain, 3);
    EXPECT_EQ(plain.objective(input, true), again.objective(input, true));
    for (std::size_t i = 0; i < plain.parameters.all().size(); ++i)
      EXPECT_EQ(plain.parameters.all()[i].gradient.finished().to_host<double>(),
                again.parameters.all()[i].gradient.finished().to_host<double>())
          << plain.parameters.all()[i].name << " in variant " << which;
  }
}

TEST(TransformerModel, DroppedAssignmentsAreCountedOnceAndCountsAreThoseBefore) {
  TinyModel plain(variant(3)), again(variant(3), Recompute::block);
  const Batch batch = synthetic_batch(plain.recipe, 1, 0, 3);
  const ModelInput input = to_device(batch);
  EXPECT_EQ(plain.objective(input, true), again.objective(input, true));
  EXPECT_EQ(dropped_by(plain, input), dropped_by(again, input));

  Tape tape;
  Objectives objectives(plain.recipe.model.moe, 2, *plain.self);
  Objectives::Step step = objectives.begin_step(0, batch.real_tokens());
  const auto statistics = again.transformer.forward(tape, input).statistics;
  step.count(statistics);  // a pass that counts ahead drops nothing that is counted
  step.finish_counting();
  tape.backward(step.begin_micro_step(statistics).objective(tape));
  const BalanceReport report = step.end();
  const std::vector<double> of_layers = report.layers_of("dropped_assignments");
  const std::vector<std::int64_t> dropped(of_layers.begin(), of_layers.end());
  EXPECT_EQ(dropped, dropped_by(plain, input));
  for (std::int64_t layer = 0; layer < 2; ++layer) {
    // No expert keeps more than its 2 places in each of 3 sequences.
    std::int64_t assignments = 0;
    for (std::size_t expert = 0; expert < 8; ++expert)
      assignments += report.counts[static_cast<std::size_t>(layer * 8) + expert];
    EXPECT_EQ(assignments, batch.real_tokens() * 2);
    EXPECT_GE(dropped[static_cast<std::size_t>(layer)], assignments - 8 * 2 * 3);
  }
}

TEST(TransformerModel, SeesOnlyEarlierTokensOfTheSameDocument) {
  TinyModel model(variant(0));
  Batch batch = synthetic_batch(model.recipe, 0, 0, 1);
  const auto hidden = [&] {
    Tape tape(Tape::Mode::forward_only);
    return model.transformer.forward(tape, to_device(batch)).hidden.value.to_host<double>();
  };
  const std::vector<double> before = hidden();
  const std::int64_t boundary = batch.document_start.back(), width = model.recipe.model.hidden_size;
  ASSERT_GT(boundary, 1);
  ASSERT_LT(boundary, batch.length);
  batch.tokens[static_cast<std::size_t>(boundary - 1)] ^= 1;  // the last token of the first document
  const std::vector<double> after = hidden();
  for (std::int64_t t = 0; t < batch.length; ++t) {
    const bool same =
        std::equal(before.begin() + t * width, before.begin() + (t + 1) * width, after.begin() + t * width);
    EXPECT_EQ(same, t != boundary - 1) << "token " << t;
  }
}

TEST(TransformerModel, PaddingIsRoutedNowhereAndCountedNowhere) {
  TinyModel model(variant(0));
  Batch batch = synthetic_batch(model.recipe, 0, 0, 2);
  Tape tape(Tape::Mode::forward_only);
  const auto statistics = model.transformer.forward(tape, to_device(batch)).statistics;
  for (const RouterStatistics& layer : statistics) {
    std::int64_t assignments = 0;
    double probability = 0;
    for (const std::int64_t count : layer.counts.to_host<std::int64_t>()) assignments += count;
    for (const double p : layer.probability_sums.value.to_host<double>()) probability += p;
    EXPECT_EQ(assignments, batch.real_tokens() * model.recipe.model.moe.num_experts_per_tok);
    EXPECT_NEAR(probability, static_cast<double>(batch.real_tokens()), 1e-9);
  }
  EXPECT_LT(batch.real_tokens(), batch.sequences * batch.length);
}

TEST(TransformerModel, NamesAreThoseOfHuggingFace) {
  Recipe recipe = variant(0);
  recipe.model.moe.first_k_dense_replace = 1;
  TinyModel model(recipe);
  for (const char* name :
       {"model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
        "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_norm.weight",
        "model.layers.0.mlp.gate_proj.weight", "model.layers.1.post_attention_layernorm.weight",
        "model.layers.1.mlp.gate.weight", "model.layers.1.mlp.experts.down_proj.weight",
        "model.layers.1.mlp.shared_experts.up_proj.weight", "model.norm.weight", "lm_head.weight"})
    EXPECT_NO_THROW(model.parameters.find(name)) << name;
  EXPECT_EQ(model.parameters.find("model.layers.1.mlp.experts.down_proj.weight").shape, (Shape{8, 32, 16}));
  TinyModel other(variant(6));
  for (const char* name :
       {"model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.o_proj.bias",
        "model.layers.0.mlp.experts.down_proj.weight", "model.layers.1.mlp.down_proj.weight"})
    EXPECT_NO_THROW(other.parameters.find(name)) << name;
  EXPECT_EQ(other.parameters.find("model.layers.1.self_attn.k_proj.bias").decay, Decay::no);
  EXPECT_THROW(other.parameters.find("model.layers.1.mlp.gate.weight"), Error);
}

TEST(TransformerModel, InitialWeightsFollowTheRecipe) {
  Recipe recipe = variant(0);
  recipe.model.scale_residual_init = true;
  TinyModel model(recipe);
  const auto deviation = [&](const char* name) {
    const auto values = model.parameters.find(name).value.to_host<double>();
    double squares = 0;
    for (const double value : values) squares += value * value;
    return std::sqrt(squares / static_cast<double>(values.size()));
  };
  EXPECT_NEAR(deviation("model.layers.0.mlp.experts.gate_proj.weight"), 0.2, 0.01);
  EXPECT_NEAR(deviation("model.layers.0.mlp.experts.down_proj.weight"), 0.1, 0.005);  // / sqrt(2 * 2)
  EXPECT_EQ(deviation("model.norm.weight"), 1.0);
}

}  // namespace
}  // namespace conclave
