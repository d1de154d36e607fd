// A whole model on the emulated device, and on a GPU where there is one, against the same model on the CPU,
// all in float32: losses and gradients of the first step, and losses while AdamW trains them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "framework/autograd/ops/elementwise.h"
#include "layers/moe/methods.h"
#include "layers/moe/moe.h"
#include "layers/moe/objectives.h"
#include "layers/transformer.h"
#include "tests/devices.h"
#include "tests/launch/synthetic.h"

namespace conclave {
namespace {

class ModelOn {
 public:
  ModelOn(const Recipe& recipe, Device& device)
      : recipe_(recipe),
        device_(device),
        feed_forwards_(recipe.model, device),
        transformer_(parameters_, recipe.model, feed_forwards_, Recompute::none) {
    std::vector<std::int64_t> count_of_id(static_cast<std::size_t>(recipe.model.vocab_size), 1);
    for (std::size_t id = 0; id < count_of_id.size(); id += 2) count_of_id[id] = 3;
    learn_from_text(recipe.model.moe, count_of_id, feed_forwards_.states());
    parameters_.materialize(DType::float32, 3, device);
    moment1_ = Tensor::zeros({parameters_.elements()}, DType::float32, device);
    moment2_ = Tensor::zeros({parameters_.elements()}, DType::float32, device);
    pieces_ = Pieces::of(
        {{.first = 0, .first_state = 0, .elements = parameters_.elements(), .weight_decay = 0.1}}, device);
  }

  /// Forward and backward; the loss.
  double differentiate(std::int64_t step) {
    ModelInput input = to_device(test::synthetic_batch(recipe_, 0, 0, 2), device_);
    input.draws = {.seed = 5, .step = step, .first_sequence = 0};
    parameters_.clear_gradients();
    Tape tape;
    Objectives objectives(recipe_.model.moe, transformer_.routers(), *self_);
    Objectives::Step of_step = objectives.begin_step(step, 24);
    const Transformer::Result result = transformer_.forward(tape, input);
    Objectives::MicroStep routers = of_step.begin_micro_step(result.statistics);
    const Variable loss = add_losses(
        tape,
        {transformer_.loss(tape, result.hidden, input, {.loss_scale = 1.0 / 24, .z_scale = 1e-4}).objective,
         routers.objective(tape)});
    tape.backward(loss);
    return loss.value.item();
  }

  void update(std::int64_t step) {
    const double t = static_cast<double>(step + 1);
    kernels_of(moment1_).adamw({.learning_rate = 3e-3,
                                .beta1 = 0.9,
                                .beta2 = 0.95,
                                .epsilon = 1e-8,
                                .correction1 = 1 - std::pow(0.9, t),
                                .correction2 = 1 - std::pow(0.95, t),
                                .gradient_scale = 1},
                               pieces_, parameters_.gradients(), parameters_.values(), moment1_, moment2_);
  }

  std::vector<float> gradients() {
    for (const Parameter& parameter : parameters_.all()) parameter.gradient.finished();
    return parameters_.gradients().to_host<float>();
  }

 private:
  Recipe recipe_;
  Device& device_;
  std::shared_ptr<Communicator> self_ = self_communicator();
  ParameterSet parameters_;
  FeedForwards feed_forwards_;
  Transformer transformer_;
  Tensor moment1_, moment2_;
  Pieces pieces_;
};

enum class Kind { plain, sigmoid, pools, biased, cosine, masked };

Recipe recipe_of(Kind kind) {
  Recipe recipe = test::tiny_recipe();
  recipe.model.moe.balance = {{.scope = BalanceScope::micro_batch, .coefficient = 0.1}};
  if (kind == Kind::pools) recipe.model.moe.router.pool = {.minimum = 2, .maximum = 8, .evaluation = 4};
  if (kind == Kind::cosine) recipe.model.moe.router.score = CosineScoreRecipe{.width = 6};
  if (kind == Kind::masked) recipe.model.moe.router.vocabulary = {.visible = 5, .frequent_share = 0.5};
  if (kind == Kind::sigmoid) {
    recipe.model.moe.router.kind = RouterKind::sigmoid;
    recipe.model.moe.router.n_group = 4;
    recipe.model.moe.router.topk_group = 2;
    recipe.model.tie_word_embeddings = true;
  }
  if (kind == Kind::biased) {
    recipe.model.attention_bias = AttentionBias::all;
    recipe.model.rope_scaling = {
        .type = RopeFrequencies::Scaling::llama3, .factor = 8, .original_max_position_embeddings = 64};
    recipe.model.moe.dense_layers = {1};
  }
  return recipe;
}

TEST(EmulatedModel, HasTheGradientsOfTheCpu) {
  for (Device* device : test::gpu_devices())
    for (const Kind kind :
         {Kind::plain, Kind::sigmoid, Kind::pools, Kind::biased, Kind::cosine, Kind::masked}) {
      ModelOn cpu(recipe_of(kind), cpu_device()), other(recipe_of(kind), *device);
      const double loss = cpu.differentiate(0);
      EXPECT_NEAR(other.differentiate(0), loss, 1e-5 * loss) << device->name();
      const std::vector<float> expected = cpu.gradients(), got = other.gradients();
      ASSERT_EQ(expected.size(), got.size());
      float largest = 0, error = 0;
      for (std::size_t i = 0; i < got.size(); ++i) {
        largest = std::max(largest, std::abs(expected[i]));
        error = std::max(error, std::abs(got[i] - expected[i]));
      }
      EXPECT_GT(largest, 1e-3f);
      EXPECT_LE(error, 1e-5f * largest) << "kind " << static_cast<int>(kind);
    }
}

TEST(EmulatedModel, TrainsAsTheCpuDoes) {
  for (Device* device : test::gpu_devices()) {
    ModelOn cpu(recipe_of(Kind::plain), cpu_device()), other(recipe_of(Kind::plain), *device);
    double first = 0, last = 0;
    for (std::int64_t step = 0; step < 20; ++step) {
      last = cpu.differentiate(step);
      if (step == 0) first = last;
      ASSERT_NEAR(other.differentiate(step), last, 1e-4 * last) << device->name() << ", step " << step;
      cpu.update(step);
      other.update(step);
    }
    EXPECT_LT(last, 0.8 * first) << "it learns the one batch";
  }
}

TEST(EmulatedModel, RunsOnCudaToo) {
  if (!test::why_no_cuda().empty()) GTEST_SKIP() << "no model ran on a GPU: " << test::why_no_cuda();
  EXPECT_EQ(test::gpu_devices().back()->kind(), DeviceKind::cuda);
}

}  // namespace
}  // namespace conclave
