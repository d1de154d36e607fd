// Trains two attention and mixture-of-experts blocks with a router of your own on a small puzzle: every
// sequence counts upwards, and its first two tokens tell by how much. Prints loss and expert load; exits with
// 1 when the loss has not fallen. Written out by hand, so that every part of a training step is in sight.
#include <cstdio>

#include "examples/add_a_router/cosine_router.h"
#include "framework/autograd/ops/vocabulary.h"
#include "framework/base/random.h"
#include "layers/attention.h"
#include "layers/moe/moe.h"
#include "layers/moe/objectives.h"
#include "optim/optimizer.h"

using namespace conclave;

namespace {

constexpr std::int64_t sequences = 16, length = 32, vocabulary = 64, tokens = sequences * length;
const ModelRecipe model;  // the default sizes: hidden 128, 4 heads, 16 experts of which a token visits 2
const std::int64_t hidden = model.hidden_size, expert_count = model.moe.num_experts;

struct Block {
  Block(ParameterSet& parameters, const std::string& name)
      : attention_norm(parameters, name + ".attention_norm", hidden, 1e-6),
        expert_norm(parameters, name + ".expert_norm", hidden, 1e-6),
        attention(parameters, name + ".attention", model, 0, {}, {}),
        moe(parameters, name, model, {}, {},
            compose_router(std::make_unique<CosineScores>(
                               parameters, name + ".router",
                               CosineScores::Options{.hidden = hidden, .experts = expert_count, .width = 8}),
                           name, model.moe)) {}

  Variable forward(Tape& tape, Variable x, const ModelInput& input,
                   std::vector<RouterStatistics>& statistics) const {
    x = add(tape, x, attention.forward(tape, attention_norm.forward(tape, x), input));
    const Moe::Result mixed = moe.forward(tape, expert_norm.forward(tape, x), input);
    statistics.push_back(mixed.routers[0]);
    return add(tape, x, mixed.y);
  }

  RmsNorm attention_norm, expert_norm;
  Attention attention;
  Moe moe;
};

/// Sequences that count by 1 to 4 from anywhere, modulo the vocabulary.
ModelInput puzzle(std::uint64_t step) {
  Batch batch{.sequences = sequences, .length = length};
  batch.document_start.assign(tokens, 0);
  for (std::int64_t s = 0; s < sequences; ++s) {
    const RandomKey key = RandomKey(1).with("puzzle").with(step).with(static_cast<std::uint64_t>(s));
    std::uint64_t number = key.below(0, vocabulary), stride = 1 + key.below(1, 4);
    for (std::int64_t t = 0; t < length; ++t) {
      batch.tokens.push_back(static_cast<std::int32_t>(number % vocabulary));
      batch.targets.push_back(static_cast<std::int32_t>((number += stride) % vocabulary));
    }
  }
  return to_device(batch);
}

}  // namespace

int main() {
  ParameterSet parameters;
  const Parameter& embeddings = parameters.create("embeddings", {vocabulary, hidden}, {}, Decay::yes);
  const Block first(parameters, "first"), second(parameters, "second");
  const Parameter& head = parameters.create("head", {vocabulary, hidden}, {}, Decay::yes);
  parameters.materialize(DType::float32, 1234);
  GradientReducer reducer(parameters, Mesh::alone());
  const auto optimizer = make_optimizer(parameters, reducer, {});
  const std::shared_ptr<Communicator> alone = self_communicator();
  Objectives objectives(model.moe, 2, *alone);
  double before = 0, now = 0;
  for (std::int64_t step = 0; step < 60; ++step) {
    const ModelInput input = puzzle(static_cast<std::uint64_t>(step));
    parameters.clear_gradients();
    Objectives::Step balance = objectives.begin_step(step, tokens);
    Tape tape;
    std::vector<RouterStatistics> statistics;
    Variable x = embedding(tape, input.tokens, embeddings.use(tape));
    for (const Block* block : {&first, &second}) x = block->forward(tape, x, input, statistics);
    const auto loss =
        linear_cross_entropy(tape, x, head.use(tape), input.targets, {.loss_scale = 1.0 / tokens});
    const Variable auxiliary = balance.begin_micro_step(statistics).objective(tape);
    tape.backward(add_losses(tape, {loss.objective, auxiliary}));
    reducer.finish();
    optimizer->step(/*learning_rate=*/3e-3, /*gradient_scale=*/1.0);
    const BalanceReport report = balance.end();
    balance.keep();
    (step == 0 ? before : now) = loss.loss_sum() / static_cast<double>(tokens);
    if (step % 10 != 9) continue;
    std::printf("step %ld  loss %.3f  load of the first block's experts:", step + 1, now);
    for (std::size_t e = 0; e < 16; ++e) std::printf(" %ld", report.counts[e]);
    std::printf("\n");
  }
  if (now < 0.5 * before) return 0;
  std::fprintf(stderr, "the loss went from %.3f to %.3f, expected less than half\n", before, now);
  return 1;
}
