// Adds a balance term of one's own: the device-level loss of DeepSeekMoE (Dai et al., arXiv 2401.06066,
// equations 15 to 17), which evens the load of groups of experts and leaves their members free. The term is
// one function over what the routers leave behind. Ends with 1 when the groups are not even at the end.
#include <algorithm>

#include "framework/base/random.h"
#include "framework/telemetry/logger.h"
#include "layers/transformer.h"
#include "optim/adamw.h"

using namespace conclave;

namespace {

constexpr std::int64_t sequences = 16, length = 32, tokens = sequences * length, group_count = 4;

/// sum over groups g of f_g P_g: f_g the mean over the group's N / D experts of (N / kT) times their counts,
/// P_g the sum of their mean probabilities. 1 under an even load. Only the probabilities carry a gradient.
Variable device_balance(Tape& tape, const RouterStatistics& statistics, double weight) {
  const std::int64_t rows = statistics.counts.dim(0), experts = statistics.counts.dim(1),
                     members = experts / group_count;
  const std::vector<std::int64_t> counts = statistics.counts.to_host<std::int64_t>();  // [sequences, experts]
  std::vector<double> load(group_count, 0);
  double assignments = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    load[i % static_cast<std::size_t>(experts) / static_cast<std::size_t>(members)] +=
        static_cast<double>(counts[i]);
    assignments += static_cast<double>(counts[i]);
  }
  std::vector<double> factors;  // [sequences, experts]
  for (std::int64_t i = 0; i < rows * experts; ++i)
    factors.push_back(weight / tokens * group_count * load[static_cast<std::size_t>(i % experts / members)] /
                      assignments);
  return weighted_sum(tape, statistics.probability_sums, Tensor::from(factors, {rows, experts}));
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

/// The largest load of a group over an even one, over the last steps of a training with this weight of the
/// term.
double train(double weight, Logger& logger) {
  ModelRecipe model;
  model.vocab_size = 64;
  model.num_hidden_layers = 1;
  ParameterSet parameters;
  const Transformer transformer(parameters, model, Recompute::none);
  parameters.materialize(DType::float32, 1234);
  GradientReducer reducer(parameters, Mesh::alone());
  AdamW optimizer(parameters, reducer, {});
  std::vector<double> load(group_count, 0);
  for (std::uint64_t step = 0; step < 60; ++step) {
    const ModelInput input = skewed_input(step);
    parameters.clear_gradients();
    Tape tape;
    const Transformer::Result result = transformer.forward(tape, input);
    const CrossEntropy loss = transformer.loss(tape, result.hidden, input, {.loss_scale = 1.0 / tokens});
    std::vector<Variable> terms = {loss.objective};
    for (const RouterStatistics& layer : result.statistics)
      terms.push_back(device_balance(tape, layer, weight));
    tape.backward(add_losses(tape, terms));
    reducer.finish();
    optimizer.step(/*learning_rate=*/3e-3, /*gradient_scale=*/1.0);
    const std::vector<std::int64_t> counts = result.statistics[0].counts.to_host<std::int64_t>();
    for (std::size_t i = 0; step >= 50 && i < counts.size(); ++i)
      load[i % 16 / (16 / group_count)] += static_cast<double>(counts[i]);
    if (step % 20 == 19)
      logger.info("weight ", weight, "  step ", step + 1, "  loss ", loss.loss_sum() / tokens);
  }
  double sum = 0;
  for (const double group : load) sum += group;
  return *std::max_element(load.begin(), load.end()) * group_count / sum;
}

}  // namespace

int main() {
  Logger logger;
  const double without = train(0, logger), with = train(0.1, logger);
  logger.info("largest load of a group over an even one: ", without, " without the term, ", with, " with it");
  return with < without && with < 1.15 ? 0 : 1;
}
