// A token is balanced with the whole global batch ("Demons in the Detail", arXiv 2501.11873). At a micro-step
// a part of it is still to come; an estimator says what stands for it (docs/balance.md): `running` what was
// seen so far, `warm` that and the previous step, `lagged` the previous step, `exact` a forward pass ahead.
#include <numeric>

#include "layers/moe/balance_report.h"
#include "layers/moe/load_scope.h"

namespace conclave {
namespace {

class GlobalBatchScope final : public LoadScope {
 public:
  GlobalBatchScope(Estimator estimator, const ScopeFacts& facts) : estimator_(estimator), model_(facts) {}

  void want(const StepFacts& step, ExpertCounts::Needs& needs) override {
    step_tokens_ = step.tokens;
    needs.all_ranks |= estimator_ == Estimator::running || estimator_ == Estimator::warm;
    needs.whole_step |= estimator_ == Estimator::exact;
  }
  std::vector<double> fractions(const RoutedMicroStep& seen, const std::vector<double>& previous) override {
    estimate_ = estimate_of(seen.step, previous);
    return for_each_sequence(estimate_, seen.counted.sequences, model_.experts);
  }
  const std::vector<double>* estimate() const override { return &estimate_; }

 private:
  std::vector<double> estimate_of(const ExpertCounts::Step& step, const std::vector<double>& previous) const {
    const std::int64_t experts = model_.experts;
    if (estimator_ == Estimator::lagged)
      return previous.empty() ? std::vector<double>(static_cast<std::size_t>(model_.layers * experts),
                                                    1.0 / static_cast<double>(experts))
                              : previous;
    const ExpertCounts::Counts& counts = estimator_ == Estimator::exact ? step.step_ahead() : step.seen();
    std::vector<double> fractions(counts.size());
    const double top_k = static_cast<double>(model_.top_k), all = static_cast<double>(step_tokens_);
    for (std::int64_t layer = 0; layer < model_.layers; ++layer) {
      const std::int64_t begin = layer * experts;
      // Each real token makes k assignments, so the counts know how many tokens they hold.
      const double assignments = static_cast<double>(std::accumulate(
                       counts.begin() + begin, counts.begin() + begin + experts, std::int64_t{0})),
                   tokens = assignments / top_k;
      for (std::int64_t i = begin; i < begin + experts; ++i) {
        const auto at = static_cast<std::size_t>(i);
        const double count = static_cast<double>(counts[at]);
        if (estimator_ == Estimator::warm && !previous.empty())
          fractions[at] = (count / top_k + (all - tokens) * previous[at]) / all;
        else
          fractions[at] = assignments > 0 ? count / assignments : 0;
      }
    }
    return fractions;
  }

  Estimator estimator_;
  ScopeFacts model_;
  std::int64_t step_tokens_ = 0;
  std::vector<double> estimate_;
};

}  // namespace

LoadScopeKind global_batch_scope() {
  return {.scope = BalanceScope::global_batch,
          .make = [](const BalanceRecipe& term, const ScopeFacts& facts) -> std::unique_ptr<LoadScope> {
            return std::make_unique<GlobalBatchScope>(term.estimator, facts);
          },
          .is_whole_step = true};
}

}  // namespace conclave
