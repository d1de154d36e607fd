// Adds a balance term of one's own: the importance loss of the first sparsely gated layers (Shazeer et al.,
// arXiv 1701.06538, equations 6 and 7), here over whole softmaxes. It counts no choices, so it needs no f:
// the probabilities of a batch alone say how uneven the experts are. The term is one function over what the
// routers leave behind. Ends with 1 when the experts are not evener at the end.
#include "framework/base/random.h"
#include "framework/telemetry/logger.h"
#include "layers/moe/moe.h"
#include "layers/transformer.h"
#include "optim/optimizer.h"

using namespace conclave;

namespace {

constexpr std::int64_t sequences = 16, length = 32, tokens = sequences * length;

/// [experts]: sums over tokens of the probabilities.
std::vector<double> importances(const RouterStatistics& statistics) {
  const std::vector<double> rows =
      statistics.probability_sums.value.to_host<double>();  // [sequences, experts]
  std::vector<double> sums(static_cast<std::size_t>(statistics.probability_sums.value.dim(1)));
  for (std::size_t i = 0; i < rows.size(); ++i) sums[i % sums.size()] += rows[i];
  return sums;
}

/// Their squared coefficient of variation, variance / mean^2 = (N / T^2) sum_i P_i^2 - 1, as the N of them
/// sum to T. 0 when all are even.
double unevenness(const std::vector<double>& importance) {
  double squares = 0;
  for (const double one : importance) squares += one * one;
  return static_cast<double>(importance.size()) * squares / (tokens * tokens) - 1;
}

/// The term, float64 [1]. The row of each sequence gets the gradient, dP_i = weight 2 N P_i / T^2 dloss.
Variable importance_loss(Tape& tape, const RouterStatistics& statistics, double weight) {
  const std::vector<double> importance = importances(statistics);
  Variable loss = tape.output(Tensor::from(std::vector<double>{weight * unevenness(importance)}, {1}));
  // What is captured is what backward keeps.
  tape.record("importance_loss", [=, sums = statistics.probability_sums, out_gradient = loss.gradient] {
    const std::size_t experts = importance.size();
    const double dloss = out_gradient.take().item(),
                 scale = 2 * weight * static_cast<double>(experts) / (tokens * tokens) * dloss;
    std::vector<double> dsums(static_cast<std::size_t>(sums.value.elements()));
    for (std::size_t i = 0; i < dsums.size(); ++i) dsums[i] = scale * importance[i % experts];
    sums.gradient.add(Tensor::from(dsums, sums.value.shape()));
  });
  return loss;
}

/// Few token ids come often, so that a router that is left alone prefers some experts.
ModelInput skewed_input(std::uint64_t step) {
  Batch batch{.sequences = sequences, .length = length};
  batch.document_start.assign(tokens, 0);
  for (std::uint64_t i = 0; i < tokens; ++i) {
    const double draw = RandomKey(1).with(step).uniform(i);
    batch.tokens.push_back(static_cast<std::int32_t>(64 * draw * draw * draw));
    batch.targets.push_back((batch.tokens.back() + 1) % 64);
  }
  return to_device(batch);
}

/// How uneven the experts are over the last steps of a training with this weight of the term.
double train(double weight, Logger& logger) {
  ModelRecipe model;
  model.vocab_size = 64;
  model.num_hidden_layers = 1;
  ParameterSet parameters;
  const Transformer transformer(parameters, model, FeedForwards(model), Recompute::none);
  parameters.materialize(DType::float32, 1234);
  GradientReducer reducer(parameters, Mesh::alone());
  const auto optimizer = make_optimizer(parameters, reducer, {});
  double uneven = 0;
  for (std::uint64_t step = 0; step < 60; ++step) {
    const ModelInput input = skewed_input(step);
    parameters.clear_gradients();
    Tape tape;
    const Transformer::Result result = transformer.forward(tape, input);
    const CrossEntropy loss = transformer.loss(tape, result.hidden, input, {.loss_scale = 1.0 / tokens});
    std::vector<Variable> terms = {loss.objective};
    for (const RouterStatistics& layer : result.statistics)
      terms.push_back(importance_loss(tape, layer, weight));
    tape.backward(add_losses(tape, terms));
    reducer.finish();
    optimizer->step(/*learning_rate=*/3e-3, /*gradient_scale=*/1.0);
    if (step >= 50) uneven += unevenness(importances(result.statistics[0])) / 10;
    if (step % 20 == 19)
      logger.info("weight ", weight, "  step ", step + 1, "  loss ", loss.loss_sum() / tokens);
  }
  return uneven;
}

}  // namespace

int main() {
  Logger logger;
  const double without = train(0, logger), with = train(0.1, logger);
  logger.info("unevenness of the experts' importances: ", without, " without the term, ", with, " with it");
  return with < without / 5 ? 0 : 1;
}
