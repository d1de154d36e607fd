// A token is balanced with its own sequence.
#include "layers/moe/balance_report.h"
#include "layers/moe/load_scope.h"

namespace conclave {
namespace {

class SequenceScope final : public LoadScope {
 public:
  explicit SequenceScope(const ScopeFacts& facts) : experts_(facts.experts) {}
  void want(const StepFacts&, ExpertCounts::Needs& needs) override { needs.sequences = true; }
  std::vector<double> fractions(const RoutedMicroStep& seen, const std::vector<double>&) override {
    return fractions_by_row(seen.counted.by_sequence, experts_);
  }

 private:
  std::int64_t experts_;
};

}  // namespace

LoadScopeKind sequence_scope() {
  return {.scope = BalanceScope::sequence,
          .make = [](const BalanceRecipe&, const ScopeFacts& facts) -> std::unique_ptr<LoadScope> {
            return std::make_unique<SequenceScope>(facts);
          },
          .loads = [](const RoutedMicroStep& seen) -> LoadSets {
            return {seen.counted.by_sequence, seen.step.speaks_for_micro_batch()};
          }};
}

}  // namespace conclave
