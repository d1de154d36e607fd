#include "layers/balance_loss.h"

#include <algorithm>
#include <numeric>

#include "framework/autograd/ops/elementwise.h"
#include "layers/selection_bias.h"

namespace conclave {
namespace {

bool is_global(const BalanceRecipe& term) {
  return term.scope == BalanceScope::global_batch;
}

/// Each f of the rows of experts becomes the mean over its group of `members` consecutive ones.
void average_in_groups(std::vector<double>& fractions, std::int64_t members) {
  for (auto group = fractions.begin(); group != fractions.end(); group += members)
    std::fill_n(group, members, std::accumulate(group, group + members, 0.0) / static_cast<double>(members));
}

}  // namespace

BalanceLoss::BalanceLoss(const MoeRecipe& moe, std::int64_t layers, Communicator& all_tokens,
                         Communicator* micro_batch, std::uint64_t seed)
    : moe_(moe),
      layers_(layers),
      experts_(moe.num_experts),
      all_tokens_(all_tokens),
      seed_(seed),
      counts_(layers, moe.num_experts, all_tokens, micro_batch) {
  for (const BalanceRecipe& term : moe_.balance) {
    check(term.scope != BalanceScope::group || term.balance_batch_size >= 1, Fault::request,
          "model.moe.balance: balance_batch_size ", term.balance_batch_size,
          " came with the scope group, expected at least 1");
    check(term.expert_groups >= 0 && (term.expert_groups == 0 || experts_ % term.expert_groups == 0),
          Fault::request, "model.moe.balance: expert_groups ", term.expert_groups, " came for ", experts_,
          " experts, expected 0 or a divisor of them");
  }
}

bool BalanceLoss::active(const BalanceRecipe& term) const {
  return layers_ > 0 && term.coefficient != 0 && step_ >= term.first_step &&
         (term.last_step < 0 || step_ <= term.last_step);
}

bool BalanceLoss::bias_is_active() const {
  const SelectionBiasRecipe& bias = moe_.router.bias;
  return layers_ > 0 && bias.rate > 0 && (bias.last_step < 0 || step_ <= bias.last_step);
}

bool BalanceLoss::bias_is_narrow() const {
  return bias_is_active() && moe_.router.bias.scope != BiasScope::global_batch;
}

bool BalanceLoss::is_local_group(const BalanceRecipe& term) const {
  return term.scope == BalanceScope::group && place_.micro_batch_size % term.balance_batch_size == 0;
}

ExpertCounts::Needs BalanceLoss::needs_of_step() {
  ExpertCounts::Needs needs;
  const auto need = [&](auto scope) {  // of a term or of the bias
    using Scope = decltype(scope);
    needs.sequences |= scope == Scope::sequence;
    needs.micro_batch |= scope == Scope::micro_batch;
    needs.all_ranks |= scope == Scope::data_parallel;
  };
  sets_of_term_.assign(moe_.balance.size(), -1);
  for (std::size_t index = 0; index < moe_.balance.size(); ++index) {
    const BalanceRecipe& term = moe_.balance[index];
    if (!active(term)) continue;
    need(term.scope);
    needs.all_ranks |=
        is_global(term) && (term.estimator == Estimator::running || term.estimator == Estimator::warm);
    needs.whole_step |= is_global(term) && term.estimator == Estimator::exact;
    if (term.scope != BalanceScope::group && term.scope != BalanceScope::shuffle) continue;
    check(place_.micro_batch_size > 0, "BalanceLoss: the scope ", term.scope,
          " needs to know where micro-batches lie in the step");
    needs.sequences |= is_local_group(term);
    if (is_local_group(term)) continue;
    sets_of_term_[index] = static_cast<std::int64_t>(needs.sets.size());
    if (term.scope == BalanceScope::group)
      needs.sets.push_back(std::make_unique<SequenceGroups>(place_, term.balance_batch_size));
    else
      needs.sets.push_back(std::make_unique<TokenSamples>(
          place_, RandomKey(seed_).with("balance shuffle").with(static_cast<std::uint64_t>(step_))));
  }
  if (bias_is_active()) need(moe_.router.bias.scope);
  return needs;
}

void BalanceLoss::begin_step(std::int64_t step, std::int64_t step_tokens, const BatchPlace& place) {
  check(step_tokens > 0, Fault::data, "step ", step, " holds no tokens");
  step_ = step;
  step_tokens_ = step_tokens;
  place_ = place;
  micro_steps_done_ = 0;
  counts_.begin_step(place, needs_of_step());
  const std::size_t size = static_cast<std::size_t>(layers_ * experts_);
  const auto layers = static_cast<std::size_t>(layers_);
  sums_ = {.probabilities = std::vector<double>(size),
           .term_loss = std::vector<double>(layers),
           .z = std::vector<double>(layers)};
  if (moe_.capacity_factor > 0) sums_.dropped.resize(layers);
  if (bias_is_narrow()) {
    sums_.load_signs.resize(size);
    sums_.sign_sets.resize(1);
  }
  used_.clear();
}

void BalanceLoss::begin_micro_step(const std::vector<RouterStatistics>& layers) {
  readings_ = read_routers(layers, counts_.reads_chosen());
  counts_.begin_micro_step(readings_);
  statistics_ = layers;
}

void BalanceLoss::add_signs_of(const ExpertCounts::MicroStep& counted) {
  const BiasScope scope = moe_.router.bias.scope;
  // Ranks that know the same counts let one of them speak.
  if (scope == BiasScope::data_parallel ? !counts_.speaks_for_all() : !counts_.speaks_for_micro_batch())
    return;
  const Counts& counts = scope == BiasScope::data_parallel ? counted.all_ranks
                         : scope == BiasScope::sequence    ? counted.by_sequence
                                                           : counted.micro_batch;
  sums_.sign_sets[0] += static_cast<double>(add_load_signs(counts, layers_, experts_, sums_.load_signs));
}

std::vector<double> BalanceLoss::estimate(const BalanceRecipe& term) const {
  if (term.estimator == Estimator::lagged)
    return previous_fractions_.empty() ? std::vector<double>(static_cast<std::size_t>(layers_ * experts_),
                                                             1.0 / static_cast<double>(experts_))
                                       : previous_fractions_;
  const Counts& counts = term.estimator == Estimator::exact ? counts_.step_ahead() : counts_.seen();
  std::vector<double> fractions(counts.size());
  const double top_k = static_cast<double>(moe_.num_experts_per_tok), all = static_cast<double>(step_tokens_);
  for (std::int64_t layer = 0; layer < layers_; ++layer) {
    const std::int64_t begin = layer * experts_;
    // Each real token makes k assignments, so the counts know how many tokens they hold.
    const double assignments = static_cast<double>(std::accumulate(
                     counts.begin() + begin, counts.begin() + begin + experts_, std::int64_t{0})),
                 tokens = assignments / top_k;
    for (std::int64_t i = begin; i < begin + experts_; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const double count = static_cast<double>(counts[at]);
      if (term.estimator == Estimator::warm && !previous_fractions_.empty())
        fractions[at] = (count / top_k + (all - tokens) * previous_fractions_[at]) / all;
      else
        fractions[at] = assignments > 0 ? count / assignments : 0;
    }
  }
  return fractions;
}

BalanceLoss::Counts BalanceLoss::counts_of_sets(std::size_t term,
                                                const ExpertCounts::MicroStep& counted) const {
  const std::int64_t sequences = counted.sequences, size = moe_.balance[term].balance_batch_size;
  Counts counts(counted.by_sequence.size());
  const auto at = [&](std::int64_t layer, std::int64_t row, std::int64_t rows, std::int64_t expert) {
    return static_cast<std::size_t>((layer * rows + row) * experts_ + expert);
  };
  for (std::int64_t layer = 0; layer < layers_; ++layer)
    for (std::int64_t b = 0; b < sequences; ++b)
      for (std::int64_t expert = 0; expert < experts_; ++expert) {
        std::int64_t& count = counts[at(layer, b, sequences, expert)];
        if (const std::int64_t index = sets_of_term_[term]; index >= 0) {
          const TokenSets& sets = *counts_.needs().sets[static_cast<std::size_t>(index)];
          count = counted.sets[static_cast<std::size_t>(index)]
                              [at(layer, sets.set_of(micro_steps_done_, b), sets.sets(), expert)];
        } else {  // micro-batches begin at multiples of the group's size
          for (std::int64_t other = b / size * size; other < (b / size + 1) * size; ++other)
            count += counted.by_sequence[at(layer, other, sequences, expert)];
        }
      }
  return counts;
}

std::vector<double> BalanceLoss::fractions_of(std::size_t term,
                                              const ExpertCounts::MicroStep& counted) const {
  const BalanceRecipe& recipe = moe_.balance[term];
  if (recipe.scope == BalanceScope::sequence) return fractions_by_row(counted.by_sequence, experts_);
  if (recipe.scope == BalanceScope::group || recipe.scope == BalanceScope::shuffle)
    return fractions_by_row(counts_of_sets(term, counted), experts_);
  const std::vector<double> shared =  // [layers, experts]
      is_global(recipe)                             ? estimate(recipe)
      : recipe.scope == BalanceScope::data_parallel ? fractions_by_row(counted.all_ranks, experts_)
                                                    : fractions_by_row(counted.micro_batch, experts_);
  std::vector<double> fractions;
  for (auto begin = shared.begin(); begin != shared.end(); begin += experts_)
    for (std::int64_t s = 0; s < counted.sequences; ++s)
      fractions.insert(fractions.end(), begin, begin + experts_);
  return fractions;
}

Variable BalanceLoss::objective(Tape& tape, Device& device) {
  const ExpertCounts::MicroStep& counted = counts_.micro_step();
  const std::vector<RouterStatistics> layers = std::move(statistics_);
  const std::vector<RouterReading> readings = std::move(readings_);
  if (bias_is_narrow()) add_signs_of(counted);

  const double layer_factor =
      moe_.layer_reduction == LayerReduction::mean ? 1.0 / static_cast<double>(layers_) : 1.0;
  const double scale = static_cast<double>(experts_) / static_cast<double>(step_tokens_);
  const double z_scale = layer_factor * moe_.router.z_loss_coefficient / static_cast<double>(step_tokens_);
  bool first_global = true, first_term = true;
  const auto of_layer = static_cast<std::size_t>(counted.sequences * experts_);
  std::vector<double> factors(layers.size() * of_layer);
  for (std::size_t index = 0; index < moe_.balance.size(); ++index) {
    const BalanceRecipe& term = moe_.balance[index];
    if (!active(term)) continue;
    if (is_global(term) && first_global) used_.push_back(estimate(term));
    first_global = first_global && !is_global(term);
    std::vector<double> fractions = fractions_of(index, counted);
    if (term.expert_groups > 0) average_in_groups(fractions, experts_ / term.expert_groups);
    for (std::size_t layer = 0; layer < layers.size(); ++layer)
      for (std::size_t i = 0; i < of_layer; ++i) {
        const double fraction = fractions[layer * of_layer + i];
        factors[layer * of_layer + i] += layer_factor * term.coefficient * scale * fraction;
        if (first_term) sums_.term_loss[layer] += scale * fraction * readings[layer].probability_sums[i];
      }
    first_term = false;
  }
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const RouterReading& reading = readings[layer];
    const auto experts = static_cast<std::size_t>(experts_);
    for (std::size_t i = 0; i < of_layer; ++i)
      sums_.probabilities[layer * experts + i % experts] += reading.probability_sums[i];
    sums_.z[layer] += reading.z_sum;
    if (!sums_.dropped.empty()) sums_.dropped[layer] += static_cast<double>(reading.dropped);
  }
  ++micro_steps_done_;
  if (layers.empty()) return add_losses(tape, {}, device);

  // One copy takes all factors to the device, the z loss's behind the others.
  factors.push_back(z_scale);
  const Tensor all =
      Tensor::from(factors, {static_cast<std::int64_t>(factors.size())}, layers[0].z_sum.value.device());
  std::vector<Variable> losses;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const Variable& sums = layers[layer].probability_sums;
    if (!first_term)  // some term was active
      losses.push_back(weighted_sum(
          tape, sums, all.part(static_cast<std::int64_t>(layer * of_layer), sums.value.shape())));
    losses.push_back(weighted_sum(tape, layers[layer].z_sum,
                                  all.part(static_cast<std::int64_t>(layers.size() * of_layer), {1})));
  }
  return add_losses(tape, losses);
}

BalanceReport BalanceLoss::end_step() {
  if (layers_ == 0) return {};
  const Counts counts = counts_.end_step();
  sums_.sum_over(all_tokens_);
  const bool any_term = std::any_of(moe_.balance.begin(), moe_.balance.end(),
                                    [this](const BalanceRecipe& term) { return active(term); });
  BalanceReport report = report_of(counts, sums_,
                                   {.layers = layers_,
                                    .experts = experts_,
                                    .tokens = step_tokens_,
                                    .any_term = any_term,
                                    .used = std::move(used_)});
  if (bias_is_narrow()) {
    report.load_signs = sums_.load_signs;
    for (double& sign : report.load_signs) sign /= std::max(sums_.sign_sets[0], 1.0);
  } else if (bias_is_active()) {
    report.load_signs.assign(counts.size(), 0);
    add_load_signs(counts, layers_, experts_, report.load_signs);
  }
  previous_fractions_ = fractions_by_row(counts, experts_);
  return report;
}

void BalanceLoss::set_previous_fractions(std::vector<double> fractions) {
  check(fractions.empty() || static_cast<std::int64_t>(fractions.size()) == layers_ * experts_, Fault::data,
        "balance state: ", fractions.size(), " fractions came for ", layers_, " layers of ", experts_,
        " experts");
  previous_fractions_ = std::move(fractions);
}

}  // namespace conclave
