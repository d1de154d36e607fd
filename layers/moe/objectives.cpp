#include "layers/moe/objectives.h"

#include <algorithm>
#include <limits>

#include "framework/autograd/ops/elementwise.h"
#include "layers/moe/methods.h"

namespace conclave {

Objectives::Objectives(const MoeRecipe& moe, std::int64_t layers, Communicator& all_tokens,
                       Communicator* micro_batch, std::uint64_t seed, const MethodStates& states)
    : layers_(layers),
      experts_(moe.num_experts),
      all_tokens_(all_tokens),
      counts_(layers, moe.num_experts, all_tokens, micro_batch) {
  const ObjectiveFacts facts{
      moe, {.layers = layers, .experts = experts_, .top_k = moe.num_experts_per_tok, .seed = seed}, states};
  for (const Method& method : methods())
    if (method.objective != nullptr)
      if (auto objective = method.objective(facts)) all_.push_back(std::move(objective));
}

Objectives::Step Objectives::begin_step(std::int64_t step, std::int64_t step_tokens,
                                        const BatchPlace& place) {
  check(step_tokens > 0, Fault::data, "step ", step, " holds no tokens");
  return Step(*this, {.step = step, .tokens = step_tokens, .place = place});
}

std::vector<MethodState*> Objectives::states() const {
  std::vector<MethodState*> states;
  for (const auto& objective : all_)
    for (MethodState* state : objective->states()) states.push_back(state);
  return states;
}

BalanceReport Objectives::unknown() const {
  constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
  BalanceReport report{.load_balance_loss = unknown,
                       .global_balance_loss = unknown,
                       .estimator_error = unknown,
                       .max_load_violation = unknown};
  for (const auto& objective : all_) objective->report_unknown(report);
  return report;
}

Objectives::Step::Step(Objectives& objectives, const StepFacts& facts)
    : of_(objectives), facts_(facts), counts_(of_.counts_.begin_step(facts.place, needs())) {}

ExpertCounts::Needs Objectives::Step::needs() {
  ExpertCounts::Needs needs;
  sums_.add("probabilities", of_.layers_ * of_.experts_);  // p_i over tokens
  if (of_.layers_ == 0) return needs;
  for (const auto& objective : of_.all_) objective->want(facts_, needs, sums_);
  return needs;
}

Objectives::MicroStep Objectives::Step::begin_micro_step(const std::vector<RouterStatistics>& layers) {
  return MicroStep(*this, layers, read_routers(layers, counts_.reads_chosen()));
}

Variable Objectives::MicroStep::objective(Tape& tape, Device& device) {
  const ExpertCounts::Known& counted = counts_.counts();
  const RoutedMicroStep seen{step_.micro_steps_done_++, step_.counts_, counted, readings_, layers_};
  const std::vector<RouterStatistics>& layers = layers_;
  if (layers.empty()) return add_losses(tape, {}, device);

  const auto experts = static_cast<std::size_t>(step_.of_.experts_);
  const std::size_t of_layer = static_cast<std::size_t>(counted.sequences) * experts;
  Factors factors{.probability_sums = std::vector<double>(layers.size() * of_layer)};
  std::vector<Variable> more;
  for (const auto& objective : step_.of_.all_)
    if (Variable term = objective->of_micro_step(tape, seen, factors, step_.sums_); term.value.defined())
      more.push_back(std::move(term));
  std::vector<double>& probabilities = step_.sums_["probabilities"];
  for (std::size_t layer = 0; layer < layers.size(); ++layer)
    for (std::size_t i = 0; i < of_layer; ++i)
      probabilities[layer * experts + i % experts] += readings_[layer].probability_sums[i];

  // One copy takes all factors to the device, that of z_sum behind the others.
  std::vector<double>& all = factors.probability_sums;
  all.push_back(factors.z_sum);
  const Tensor on_device =
      Tensor::from(all, {static_cast<std::int64_t>(all.size())}, layers[0].z_sum.value.device());
  std::vector<Variable> losses;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const Variable& sums = layers[layer].probability_sums;
    if (factors.any_probability)
      losses.push_back(weighted_sum(
          tape, sums, on_device.part(static_cast<std::int64_t>(layer * of_layer), sums.value.shape())));
    losses.push_back(weighted_sum(tape, layers[layer].z_sum,
                                  on_device.part(static_cast<std::int64_t>(layers.size() * of_layer), {1})));
  }
  losses.insert(losses.end(), more.begin(), more.end());
  return add_losses(tape, losses);
}

BalanceReport Objectives::Step::end() {
  if (of_.layers_ == 0) return {};
  const ExpertCounts::Counts counts = counts_.end();
  sums_.sum_over(of_.all_tokens_);
  const auto experts = static_cast<std::size_t>(of_.experts_);
  const double tokens = static_cast<double>(facts_.tokens), layers = static_cast<double>(of_.layers_);
  const std::vector<double> fractions = fractions_by_row(counts, of_.experts_);
  BalanceReport report;
  report.counts = counts;
  for (const double sum : sums_["probabilities"]) report.mean_probability.push_back(sum / tokens);
  std::vector<double> balance_losses;
  for (std::size_t layer = 0; layer < static_cast<std::size_t>(of_.layers_); ++layer) {
    double global = 0, most = 0;
    for (std::size_t i = layer * experts; i < (layer + 1) * experts; ++i) {
      global += static_cast<double>(experts) * fractions[i] * report.mean_probability[i];
      most = std::max(most, fractions[i] * static_cast<double>(experts));
    }
    balance_losses.push_back(global);
    report.global_balance_loss += global / layers;
    report.max_load_violation = std::max(report.max_load_violation, most - 1);
  }
  const StepOutcome outcome{.layers = of_.layers_,
                            .experts = of_.experts_,
                            .tokens = facts_.tokens,
                            .counts = counts,
                            .fractions = fractions,
                            .balance_losses = balance_losses};
  for (const auto& objective : of_.all_) objective->report(outcome, sums_, report);
  return report;
}

void Objectives::Step::keep() {
  if (of_.layers_ == 0) return;
  for (const auto& objective : of_.all_) objective->keep();
}

}  // namespace conclave
