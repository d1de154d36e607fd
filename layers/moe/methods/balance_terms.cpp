// Load-balancing losses, one term each of model.moe.balance:
//
//   L = (N / T) sum over tokens t of sum_i f_i^S(t) p_i(t),   dL/dp_i(t) = (N / T) f_i^S(t)
//
// N experts, k of them per token, T real tokens of the whole optimizer step over all ranks and micro-batches,
// S(t) the scope that t is balanced with, f_i^S = c_i^S / (k T_S) from integer counts that carry no gradient
// ("Demons in the Detail", arXiv 2501.11873). Everything is divided here by totals of the step and only
// summed afterwards, over micro-batches and ranks alike. L is 1 under uniform routing in every scope.
//
// A term over D groups of consecutive experts (DeepSeekMoE's device-level loss, arXiv 2401.06066, equations
// 15 to 17) puts the mean of f over a group in the place of its members' f:
//
//   L = (D / T) sum over t of sum over groups g of F_g P_g(t),   F_g, P_g(t): sums of f_i and p_i(t) in g
#include <algorithm>
#include <cmath>
#include <numeric>

#include "layers/moe/methods.h"

namespace conclave {
namespace {

/// Each f of the rows of experts becomes the mean over its group of `members` consecutive ones.
void average_in_groups(std::vector<double>& fractions, std::int64_t members) {
  for (auto group = fractions.begin(); group != fractions.end(); group += members)
    std::fill_n(group, members, std::accumulate(group, group + members, 0.0) / static_cast<double>(members));
}

class BalanceTerms final : public Objective {
 public:
  explicit BalanceTerms(const ObjectiveFacts& facts)
      : model_(facts.model),
        layer_factor_(facts.moe.layer_reduction == LayerReduction::mean
                          ? 1.0 / static_cast<double>(model_.layers)
                          : 1.0),
        previous_{"state/previous_fractions", {model_.layers, model_.experts}, {}} {
    for (const BalanceRecipe& term : facts.moe.balance) {
      check(term.expert_groups >= 0 && (term.expert_groups == 0 || model_.experts % term.expert_groups == 0),
            Fault::request, "model.moe.balance: expert_groups ", term.expert_groups, " came for ",
            model_.experts, " experts, expected 0 or a divisor of them");
      terms_.push_back({term, load_scope(term.scope).make(term, model_)});
    }
  }

  void want(const StepFacts& step, ExpertCounts::Needs& needs, StepSums& sums) override {
    step_ = step;
    sums.add("term_loss", model_.layers);  // unweighted, of the first active term
    used_.clear();
    for (const Term& term : terms_)
      if (active(term)) term.scope->want(step, needs);
  }

  Variable of_micro_step(Tape&, const RoutedMicroStep& seen, Factors& factors, StepSums& sums) override {
    const double scale = static_cast<double>(model_.experts) / static_cast<double>(step_.tokens);
    const auto of_layer = static_cast<std::size_t>(seen.counted.sequences * model_.experts);
    bool first_estimate = true, first = true;
    std::vector<double>& term_loss = sums["term_loss"];
    std::vector<double>& all = factors.probability_sums;
    for (const Term& term : terms_) {
      if (!active(term)) continue;
      Fractions fractions = term.scope->fractions(seen, previous_.values);
      if (const Fractions* estimate = term.scope->estimate(); estimate != nullptr && first_estimate) {
        used_.push_back(*estimate);
        first_estimate = false;
      }
      if (term.recipe.expert_groups > 0)
        average_in_groups(fractions, model_.experts / term.recipe.expert_groups);
      const double layer_factor = layer_factor_;
      for (std::size_t layer = 0; layer < seen.readings.size(); ++layer)
        for (std::size_t i = 0; i < of_layer; ++i) {
          const double fraction = fractions[layer * of_layer + i];
          all[layer * of_layer + i] += layer_factor * term.recipe.coefficient * scale * fraction;
          if (first) term_loss[layer] += scale * fraction * seen.readings[layer].probability_sums[i];
        }
      first = false;
    }
    factors.any_probability |= !first;
    return {};
  }

  void report(const StepOutcome& step, const StepSums& sums, BalanceReport& report) override {
    const bool any =
        std::any_of(terms_.begin(), terms_.end(), [&](const Term& term) { return active(term); });
    // Without a term the loss of the whole step's counts stands for it.
    report.layer_balance_loss = any ? sums["term_loss"] : step.balance_losses;
    for (const double loss : report.layer_balance_loss)
      report.load_balance_loss += loss / static_cast<double>(step.layers);
    const auto experts = static_cast<std::size_t>(step.experts);
    for (std::size_t layer = 0; layer < report.layer_balance_loss.size(); ++layer)
      for (const Fractions& used : used_) {
        double error = 0;
        for (std::size_t i = layer * experts; i < (layer + 1) * experts; ++i)
          error += std::abs(used[i] - step.fractions[i]);
        report.estimator_error = std::max(report.estimator_error, error);
      }
    fractions_of_step_ = step.fractions;
  }

  void keep() override { previous_.values = fractions_of_step_; }
  std::vector<ObjectiveState*> states() override { return {&previous_}; }

 private:
  using Fractions = std::vector<double>;
  struct Term {
    BalanceRecipe recipe;
    std::unique_ptr<LoadScope> scope;
  };
  bool active(const Term& term) const {
    return term.recipe.coefficient != 0 && step_.step >= term.recipe.first_step &&
           (term.recipe.last_step < 0 || step_.step <= term.recipe.last_step);
  }

  ScopeFacts model_;
  double layer_factor_;
  std::vector<Term> terms_;
  ObjectiveState previous_;  // f of the last step; empty before the first

  // These belong to the step under way.
  StepFacts step_;
  Fractions fractions_of_step_;
  std::vector<Fractions> used_;  // what the first term that estimates the step's f took at each micro-step
};

}  // namespace

Method balance_terms() {
  return {.objective = [](const ObjectiveFacts& facts) -> std::unique_ptr<Objective> {
            return std::make_unique<BalanceTerms>(facts);
          },
          .act_always =
              [](MoeRecipe& moe) {
                for (BalanceRecipe& term : moe.balance) {
                  term.first_step = 0;
                  term.last_step = -1;
                }
              },
          .period =
              [](const MoeRecipe& moe, std::int64_t sequences) {
                std::int64_t period = 1;
                for (const BalanceRecipe& term : moe.balance)
                  if (const auto of = load_scope(term.scope).period; of != nullptr)
                    period = std::lcm(period, of(term, sequences));
                return period;
              }};
}

}  // namespace conclave
