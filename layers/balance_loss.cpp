#include "layers/balance_loss.h"

#include <algorithm>
#include <cmath>

#include "framework/autograd/ops/elementwise.h"

namespace conclave {
namespace {

/// counts [sequences, experts] summed over sequences and added to sums [experts].
void add_sequences(const Tensor& counts, std::int64_t* sums) {
  const std::vector<std::int64_t> values = counts.to_host<std::int64_t>();
  const std::int64_t experts = counts.dim(1);
  for (std::size_t i = 0; i < values.size(); ++i) sums[static_cast<std::int64_t>(i) % experts] += values[i];
}

double sum_of(const std::int64_t* counts, std::int64_t experts) {
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < experts; ++i) sum += counts[i];
  return static_cast<double>(sum);
}

bool is_global(const BalanceRecipe& term) {
  return term.scope == "global_batch";
}

}  // namespace

BalanceLoss::BalanceLoss(const MoeRecipe& moe, std::int64_t layers, Communicator& all_tokens,
                         Communicator* micro_batch)
    : moe_(moe),
      layers_(layers),
      experts_(moe.num_experts),
      all_tokens_(all_tokens),
      micro_batch_(micro_batch != nullptr && micro_batch->size() > 1 ? micro_batch : nullptr) {
  for (const BalanceRecipe& term : moe_.balance) {
    check(term.scope == "micro_batch" || is_global(term), Fault::request, "model.moe.balance: scope \"",
          term.scope, "\" came, expected micro_batch or global_batch");
    check(!is_global(term) || term.estimator == "running" || term.estimator == "warm" ||
              term.estimator == "exact",
          Fault::request, "model.moe.balance: estimator \"", term.estimator,
          "\" came, expected running, warm or exact");
  }
}

bool BalanceLoss::active(const BalanceRecipe& term) const {
  return term.coefficient != 0 && step_ >= term.first_step && (term.last_step < 0 || step_ <= term.last_step);
}

bool BalanceLoss::needs_counting_pass() const {
  return layers_ > 0 && std::any_of(moe_.balance.begin(), moe_.balance.end(), [&](const BalanceRecipe& term) {
           return active(term) && is_global(term) && term.estimator == "exact";
         });
}

bool BalanceLoss::counts_globally() const {
  return layers_ > 0 && std::any_of(moe_.balance.begin(), moe_.balance.end(), [&](const BalanceRecipe& term) {
           return active(term) && is_global(term) && term.estimator != "exact";
         });
}

bool BalanceLoss::counts_by_micro_batch() const {
  return layers_ > 0 && std::any_of(moe_.balance.begin(), moe_.balance.end(), [&](const BalanceRecipe& term) {
           return active(term) && !is_global(term);
         });
}

void BalanceLoss::begin_step(std::int64_t step, std::int64_t step_tokens) {
  check(step_tokens > 0, Fault::data, "step ", step, " holds no tokens");
  step_ = step;
  step_tokens_ = step_tokens;
  const std::size_t size = static_cast<std::size_t>(layers_ * experts_);
  seen_.assign(size, 0);
  exact_.assign(size, 0);
  own_.assign(size, 0);
  probability_sums_.assign(size, 0);
  term_loss_.assign(static_cast<std::size_t>(layers_), 0);
  z_sum_.assign(static_cast<std::size_t>(layers_), 0);
  used_.clear();
}

void BalanceLoss::all_reduce(Counts& counts, Communicator& ranks) const {
  const Tensor tensor = Tensor::from(counts, {layers_, experts_});
  ranks.all_reduce(tensor, ReduceOp::sum, Purpose::statistics);
  counts = tensor.to_host<std::int64_t>();
}

void BalanceLoss::count(const std::vector<RouterStatistics>& layers) {
  for (std::size_t layer = 0; layer < layers.size(); ++layer)
    add_sequences(layers[layer].counts, exact_.data() + static_cast<std::int64_t>(layer) * experts_);
}

void BalanceLoss::finish_counting() {
  all_reduce(exact_, all_tokens_);
}

std::vector<double> BalanceLoss::estimate(const BalanceRecipe& term) const {
  std::vector<double> fractions(seen_.size());
  const Counts& counts = term.estimator == "exact" ? exact_ : seen_;
  const double top_k = static_cast<double>(moe_.num_experts_per_tok), all = static_cast<double>(step_tokens_);
  for (std::int64_t layer = 0; layer < layers_; ++layer) {
    const std::int64_t begin = layer * experts_;
    // Each real token makes k assignments, so the counts know how many tokens they hold.
    const double assignments = sum_of(counts.data() + begin, experts_), tokens = assignments / top_k;
    for (std::int64_t i = begin; i < begin + experts_; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const double count = static_cast<double>(counts[at]);
      if (term.estimator == "warm" && !previous_fractions_.empty())
        fractions[at] = (count / top_k + (all - tokens) * previous_fractions_[at]) / all;
      else
        fractions[at] = assignments > 0 ? count / assignments : 0;
    }
  }
  return fractions;
}

std::vector<std::vector<double>> BalanceLoss::fractions_of(const BalanceRecipe& term,
                                                           const std::vector<RouterStatistics>& layers,
                                                           const Counts& micro_batch) const {
  std::vector<double> shared;  // [layers, experts]
  if (is_global(term)) {
    shared = estimate(term);
  } else {
    for (std::int64_t layer = 0; layer < layers_; ++layer) {
      const std::int64_t* counts = micro_batch.data() + layer * experts_;
      const double assignments = sum_of(counts, experts_);
      for (std::int64_t i = 0; i < experts_; ++i)
        shared.push_back(assignments > 0 ? static_cast<double>(counts[i]) / assignments : 0);
    }
  }
  std::vector<std::vector<double>> fractions(layers.size());
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const auto begin = shared.begin() + static_cast<std::ptrdiff_t>(layer) * experts_;
    for (std::int64_t s = 0; s < layers[layer].counts.dim(0); ++s)
      fractions[layer].insert(fractions[layer].end(), begin, begin + experts_);
  }
  return fractions;
}

Variable BalanceLoss::objective(Tape& tape, const std::vector<RouterStatistics>& layers) {
  check(static_cast<std::int64_t>(layers.size()) == layers_, "BalanceLoss: statistics of ", layers.size(),
        " layers came, expected ", layers_);
  Counts micro(seen_.size());
  for (std::size_t layer = 0; layer < layers.size(); ++layer)
    add_sequences(layers[layer].counts, micro.data() + static_cast<std::int64_t>(layer) * experts_);
  for (std::size_t i = 0; i < micro.size(); ++i) own_[i] += micro[i];
  Counts of_micro_batch = micro;  // joined over the ranks that share it, where a term asks for it
  if (micro_batch_ != nullptr && counts_by_micro_batch()) all_reduce(of_micro_batch, *micro_batch_);
  if (counts_globally()) {
    all_reduce(micro, all_tokens_);
    for (std::size_t i = 0; i < micro.size(); ++i) seen_[i] += micro[i];
  }

  const double layer_factor = moe_.layer_reduction == "mean" ? 1.0 / static_cast<double>(layers_) : 1.0;
  const double scale = static_cast<double>(experts_) / static_cast<double>(step_tokens_);
  const double z_scale = layer_factor * moe_.router.z_loss_coefficient / static_cast<double>(step_tokens_);
  std::vector<Variable> losses;
  bool first_global = true, first_term = true;
  std::vector<std::vector<double>> factors(layers.size());
  for (const BalanceRecipe& term : moe_.balance) {
    if (!active(term)) continue;
    if (is_global(term) && first_global) used_.push_back(estimate(term));
    first_global = first_global && !is_global(term);
    const std::vector<std::vector<double>> of_layers = fractions_of(term, layers, of_micro_batch);
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      const RouterStatistics& statistics = layers[layer];
      const std::vector<double>& fractions = of_layers[layer];
      factors[layer].resize(fractions.size());
      const std::vector<double> sums = statistics.probability_sums.value.to_host<double>();
      for (std::size_t i = 0; i < fractions.size(); ++i) {
        factors[layer][i] += layer_factor * term.coefficient * scale * fractions[i];
        if (first_term) term_loss_[layer] += scale * fractions[i] * sums[i];
      }
    }
    first_term = false;
  }
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const RouterStatistics& statistics = layers[layer];
    const Variable& sums = statistics.probability_sums;
    const std::vector<double> values = sums.value.to_host<double>();
    for (std::size_t i = 0; i < values.size(); ++i)
      probability_sums_[layer * static_cast<std::size_t>(experts_) +
                        i % static_cast<std::size_t>(experts_)] += values[i];
    z_sum_[layer] += statistics.z_sum.value.item();
    if (!factors[layer].empty())
      losses.push_back(weighted_sum(tape, sums, Tensor::from(factors[layer], sums.value.shape())));
    losses.push_back(weighted_sum(tape, statistics.z_sum, Tensor::from(std::vector<double>{z_scale}, {1})));
  }
  return add_losses(tape, losses);
}

BalanceReport BalanceLoss::end_step() {
  BalanceReport report;
  if (layers_ == 0) return report;
  report.counts = own_;
  if (counts_globally())
    report.counts = seen_;
  else
    all_reduce(report.counts, all_tokens_);
  // One float64 all-reduce carries everything else.
  std::vector<double> sums = probability_sums_;
  sums.insert(sums.end(), term_loss_.begin(), term_loss_.end());
  sums.insert(sums.end(), z_sum_.begin(), z_sum_.end());
  const Tensor tensor = Tensor::from(sums, {static_cast<std::int64_t>(sums.size())});
  all_tokens_.all_reduce(tensor, ReduceOp::sum, Purpose::statistics);
  sums = tensor.to_host<double>();

  const double tokens = static_cast<double>(step_tokens_), layers = static_cast<double>(layers_);
  const bool any_term = std::any_of(moe_.balance.begin(), moe_.balance.end(),
                                    [&](const BalanceRecipe& term) { return active(term); });
  const std::size_t size = report.counts.size();
  report.mean_probability.resize(size);
  report.layer_balance_loss.resize(static_cast<std::size_t>(layers_));
  std::vector<double> fractions(size);
  for (std::int64_t layer = 0; layer < layers_; ++layer) {
    const std::size_t begin = static_cast<std::size_t>(layer * experts_);
    const double assignments = sum_of(report.counts.data() + begin, experts_);
    double global = 0, most = 0;
    for (std::size_t i = begin; i < begin + static_cast<std::size_t>(experts_); ++i) {
      report.mean_probability[i] = sums[i] / tokens;
      fractions[i] = static_cast<double>(report.counts[i]) / assignments;
      global += static_cast<double>(experts_) * fractions[i] * report.mean_probability[i];
      most = std::max(most, fractions[i] * static_cast<double>(experts_));
    }
    const double loss = any_term ? sums[size + static_cast<std::size_t>(layer)] : global;
    report.layer_balance_loss[static_cast<std::size_t>(layer)] = loss;
    report.load_balance_loss += loss / layers;
    report.global_balance_loss += global / layers;
    report.router_z_loss += sums[size + static_cast<std::size_t>(layers_ + layer)] / tokens / layers;
    report.max_load_violation = std::max(report.max_load_violation, most - 1);
    for (const std::vector<double>& used : used_) {
      double error = 0;
      for (std::size_t i = begin; i < begin + static_cast<std::size_t>(experts_); ++i)
        error += std::abs(used[i] - fractions[i]);
      report.estimator_error = std::max(report.estimator_error, error);
    }
  }
  previous_fractions_ = std::move(fractions);
  return report;
}

void BalanceLoss::set_previous_fractions(std::vector<double> fractions) {
  check(fractions.empty() || static_cast<std::int64_t>(fractions.size()) == layers_ * experts_, Fault::data,
        "balance state: ", fractions.size(), " fractions came for ", layers_, " layers of ", experts_,
        " experts");
  previous_fractions_ = std::move(fractions);
}

}  // namespace conclave
