#include "layers/balance_loss.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "framework/autograd/ops/elementwise.h"

namespace conclave {
namespace {

using Counts = std::vector<std::int64_t>;

void add(Counts& sums, const Counts& counts) {
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += counts[i];
}

/// [layers, sequences, experts]
Counts counts_by_sequence(const std::vector<RouterStatistics>& layers) {
  Counts all;
  for (const RouterStatistics& statistics : layers) {
    const Counts counts = statistics.counts.to_host<std::int64_t>();
    all.insert(all.end(), counts.begin(), counts.end());
  }
  return all;
}

/// [layers, sequences, experts] -> [layers, experts]
Counts sum_over_sequences(const Counts& counts, std::int64_t layers, std::int64_t experts) {
  Counts sums(static_cast<std::size_t>(layers * experts));
  const std::size_t of_layer = counts.size() / static_cast<std::size_t>(std::max<std::int64_t>(layers, 1));
  for (std::size_t i = 0; i < counts.size(); ++i)
    sums[i / of_layer * static_cast<std::size_t>(experts) + i % static_cast<std::size_t>(experts)] +=
        counts[i];
  return sums;
}

void all_reduce(Counts& counts, Communicator& ranks) {
  const Tensor tensor = Tensor::from(counts, {static_cast<std::int64_t>(counts.size())});
  ranks.all_reduce(tensor, ReduceOp::sum, Purpose::statistics);
  counts = tensor.to_host<std::int64_t>();
}

double sum_of(const std::int64_t* counts, std::int64_t experts) {
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < experts; ++i) sum += counts[i];
  return static_cast<double>(sum);
}

/// counts [..., experts] divided by the sum of their row; rows without assignments stay 0.
std::vector<double> fractions_by_row(const Counts& counts, std::int64_t experts) {
  std::vector<double> fractions(counts.size());
  for (std::size_t row = 0; row < counts.size(); row += static_cast<std::size_t>(experts)) {
    const double assignments = sum_of(counts.data() + row, experts);
    for (std::size_t i = row; i < row + static_cast<std::size_t>(experts); ++i)
      fractions[i] = assignments > 0 ? static_cast<double>(counts[i]) / assignments : 0;
  }
  return fractions;
}

bool is_global(const BalanceRecipe& term) {
  return term.scope == "global_batch";
}

bool is_one_of(const std::string& word, std::initializer_list<const char*> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
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
    check(is_one_of(term.scope, {"sequence", "micro_batch", "group", "data_parallel", "global_batch"}),
          Fault::request, "model.moe.balance: scope \"", term.scope,
          "\" came, expected sequence, micro_batch, group, data_parallel or global_batch");
    check(!is_global(term) || is_one_of(term.estimator, {"running", "warm", "lagged", "exact"}),
          Fault::request, "model.moe.balance: estimator \"", term.estimator,
          "\" came, expected running, warm, lagged or exact");
    check(term.scope != "group" || term.balance_batch_size >= 1, Fault::request,
          "model.moe.balance: balance_batch_size ", term.balance_batch_size,
          " came with the scope group, expected at least 1");
  }
}

bool BalanceLoss::active(const BalanceRecipe& term) const {
  return term.coefficient != 0 && step_ >= term.first_step && (term.last_step < 0 || step_ <= term.last_step);
}

template <class Predicate>
bool BalanceLoss::any_active(const Predicate& predicate) const {
  return layers_ > 0 && std::any_of(moe_.balance.begin(), moe_.balance.end(), [&](const BalanceRecipe& term) {
           return active(term) && predicate(term);
         });
}

bool BalanceLoss::needs_counting_pass() const {
  return any_active([&](const BalanceRecipe& term) {
    return is_wide_group(term) || (is_global(term) && term.estimator == "exact");
  });
}

bool BalanceLoss::counts_each_micro_step() const {
  return any_active([](const BalanceRecipe& term) {
    return term.scope == "data_parallel" ||
           (is_global(term) && is_one_of(term.estimator, {"running", "warm"}));
  });
}

bool BalanceLoss::is_local_group(const BalanceRecipe& term) const {
  return term.scope == "group" && place_.micro_batch_size % term.balance_batch_size == 0;
}

bool BalanceLoss::is_wide_group(const BalanceRecipe& term) const {
  return term.scope == "group" && !is_local_group(term);
}

std::int64_t BalanceLoss::group_of(const BalanceRecipe& term, std::int64_t m, std::int64_t b) const {
  return ((m * place_.replicas + place_.replica) * place_.micro_batch_size + b) / term.balance_batch_size;
}

std::int64_t BalanceLoss::groups_of(const BalanceRecipe& term) const {
  const std::int64_t sequences = place_.micro_steps * place_.replicas * place_.micro_batch_size;
  return (sequences + term.balance_batch_size - 1) / term.balance_batch_size;
}

void BalanceLoss::begin_step(std::int64_t step, std::int64_t step_tokens, const BatchPlace& place) {
  check(step_tokens > 0, Fault::data, "step ", step, " holds no tokens");
  step_ = step;
  step_tokens_ = step_tokens;
  place_ = place;
  micro_steps_counted_ = micro_steps_done_ = 0;
  check(place.micro_batch_size > 0 ||
            !any_active([](const BalanceRecipe& term) { return term.scope == "group"; }),
        "BalanceLoss: the scope group needs to know where micro-batches lie in the step");
  const std::size_t size = static_cast<std::size_t>(layers_ * experts_);
  seen_.assign(size, 0);
  exact_.assign(size, 0);
  own_.assign(size, 0);
  group_counts_.assign(moe_.balance.size(), {});
  for (std::size_t i = 0; i < moe_.balance.size(); ++i)
    if (active(moe_.balance[i]) && is_wide_group(moe_.balance[i]))
      group_counts_[i].assign(size * static_cast<std::size_t>(groups_of(moe_.balance[i])), 0);
  probability_sums_.assign(size, 0);
  term_loss_.assign(static_cast<std::size_t>(layers_), 0);
  z_sum_.assign(static_cast<std::size_t>(layers_), 0);
  used_.clear();
}

void BalanceLoss::count(const std::vector<RouterStatistics>& layers) {
  const Counts counts = counts_by_sequence(layers);
  add(exact_, sum_over_sequences(counts, layers_, experts_));
  const std::int64_t m = micro_steps_counted_++;
  for (std::size_t i = 0; i < group_counts_.size(); ++i) {
    if (group_counts_[i].empty()) continue;
    const BalanceRecipe& term = moe_.balance[i];
    const std::int64_t sequences = place_.micro_batch_size, groups = groups_of(term);
    check(
        static_cast<std::int64_t>(counts.size()) == layers_ * sequences * experts_ && m < place_.micro_steps,
        "BalanceLoss: micro-step ", m, " with ", counts.size(), " counts came, expected ", place_.micro_steps,
        " micro-steps of ", layers_ * sequences * experts_);
    for (std::int64_t row = 0; row < layers_ * sequences; ++row) {
      const std::int64_t to = row / sequences * groups + group_of(term, m, row % sequences);
      for (std::int64_t expert = 0; expert < experts_; ++expert)
        group_counts_[i][static_cast<std::size_t>(to * experts_ + expert)] +=
            counts[static_cast<std::size_t>(row * experts_ + expert)];
    }
  }
}

void BalanceLoss::finish_counting() {
  Counts all = exact_;
  for (const Counts& counts : group_counts_) all.insert(all.end(), counts.begin(), counts.end());
  all_reduce(all, all_tokens_);
  auto next = all.begin();
  const auto take = [&](Counts& counts) {
    std::copy_n(next, counts.size(), counts.begin());
    next += static_cast<std::ptrdiff_t>(counts.size());
  };
  take(exact_);
  for (Counts& counts : group_counts_) take(counts);
}

BalanceLoss::MicroCounts BalanceLoss::count_micro_step(const std::vector<RouterStatistics>& layers) {
  MicroCounts counted;
  counted.sequences = layers.empty() ? 0 : layers[0].counts.dim(0);
  counted.by_sequence = counts_by_sequence(layers);
  counted.micro_batch = sum_over_sequences(counted.by_sequence, layers_, experts_);
  counted.data_parallel = counted.micro_batch;
  add(own_, counted.micro_batch);
  const bool by_sequence =
      any_active([&](const BalanceRecipe& term) { return term.scope == "sequence" || is_local_group(term); });
  if (micro_batch_ != nullptr && by_sequence) {
    all_reduce(counted.by_sequence, *micro_batch_);
    counted.micro_batch = sum_over_sequences(counted.by_sequence, layers_, experts_);
  } else if (micro_batch_ != nullptr &&
             any_active([](const BalanceRecipe& term) { return term.scope == "micro_batch"; })) {
    all_reduce(counted.micro_batch, *micro_batch_);
  }
  if (counts_each_micro_step()) {
    all_reduce(counted.data_parallel, all_tokens_);
    add(seen_, counted.data_parallel);
  }
  return counted;
}

std::vector<double> BalanceLoss::estimate(const BalanceRecipe& term) const {
  if (term.estimator == "lagged")
    return previous_fractions_.empty()
               ? std::vector<double>(seen_.size(), 1.0 / static_cast<double>(experts_))
               : previous_fractions_;
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

BalanceLoss::Counts BalanceLoss::counts_of_groups(std::size_t term, const MicroCounts& counted) const {
  const BalanceRecipe& recipe = moe_.balance[term];
  const std::int64_t sequences = counted.sequences;
  check(sequences == place_.micro_batch_size && micro_steps_done_ < place_.micro_steps,
        "BalanceLoss: micro-step ", micro_steps_done_, " with ", sequences, " sequences came, expected ",
        place_.micro_steps, " micro-steps of ", place_.micro_batch_size);
  const bool local = is_local_group(recipe);
  const std::int64_t groups = groups_of(recipe), size = recipe.balance_batch_size;
  Counts counts(counted.by_sequence.size());
  for (std::int64_t row = 0; row < layers_ * sequences; ++row) {
    const std::int64_t layer = row / sequences, b = row % sequences;
    for (std::int64_t expert = 0; expert < experts_; ++expert) {
      std::int64_t& count = counts[static_cast<std::size_t>(row * experts_ + expert)];
      if (local)  // micro-batches begin at multiples of the group's size
        for (std::int64_t other = b / size * size; other < (b / size + 1) * size; ++other)
          count +=
              counted.by_sequence[static_cast<std::size_t>((layer * sequences + other) * experts_ + expert)];
      else
        count = group_counts_[term][static_cast<std::size_t>(
            (layer * groups + group_of(recipe, micro_steps_done_, b)) * experts_ + expert)];
    }
  }
  return counts;
}

std::vector<double> BalanceLoss::fractions_of(std::size_t term, const MicroCounts& counted) const {
  const BalanceRecipe& recipe = moe_.balance[term];
  if (recipe.scope == "sequence") return fractions_by_row(counted.by_sequence, experts_);
  if (recipe.scope == "group") return fractions_by_row(counts_of_groups(term, counted), experts_);
  const std::vector<double> shared =  // [layers, experts]
      is_global(recipe)                 ? estimate(recipe)
      : recipe.scope == "data_parallel" ? fractions_by_row(counted.data_parallel, experts_)
                                        : fractions_by_row(counted.micro_batch, experts_);
  std::vector<double> fractions;
  for (auto begin = shared.begin(); begin != shared.end(); begin += experts_)
    for (std::int64_t s = 0; s < counted.sequences; ++s)
      fractions.insert(fractions.end(), begin, begin + experts_);
  return fractions;
}

Variable BalanceLoss::objective(Tape& tape, const std::vector<RouterStatistics>& layers) {
  check(static_cast<std::int64_t>(layers.size()) == layers_, "BalanceLoss: statistics of ", layers.size(),
        " layers came, expected ", layers_);
  const MicroCounts counted = count_micro_step(layers);

  const double layer_factor = moe_.layer_reduction == "mean" ? 1.0 / static_cast<double>(layers_) : 1.0;
  const double scale = static_cast<double>(experts_) / static_cast<double>(step_tokens_);
  const double z_scale = layer_factor * moe_.router.z_loss_coefficient / static_cast<double>(step_tokens_);
  std::vector<Variable> losses;
  bool first_global = true, first_term = true;
  std::vector<std::vector<double>> factors(layers.size());
  const auto of_layer = static_cast<std::size_t>(counted.sequences * experts_);
  for (std::size_t index = 0; index < moe_.balance.size(); ++index) {
    const BalanceRecipe& term = moe_.balance[index];
    if (!active(term)) continue;
    if (is_global(term) && first_global) used_.push_back(estimate(term));
    first_global = first_global && !is_global(term);
    const std::vector<double> fractions = fractions_of(index, counted);
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      factors[layer].resize(of_layer);
      const std::vector<double> sums = layers[layer].probability_sums.value.to_host<double>();
      for (std::size_t i = 0; i < of_layer; ++i) {
        const double fraction = fractions[layer * of_layer + i];
        factors[layer][i] += layer_factor * term.coefficient * scale * fraction;
        if (first_term) term_loss_[layer] += scale * fraction * sums[i];
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
  ++micro_steps_done_;
  return add_losses(tape, losses);
}

BalanceReport BalanceLoss::end_step() {
  BalanceReport report;
  if (layers_ == 0) return report;
  report.counts = own_;
  if (counts_each_micro_step())
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
  const bool any_term = any_active([](const BalanceRecipe&) { return true; });
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
