// A token is balanced with the micro-batch of its replica.
#include "layers/moe/balance_report.h"
#include "layers/moe/load_scope.h"

namespace conclave {
namespace {

class MicroBatchScope final : public LoadScope {
 public:
  explicit MicroBatchScope(const ScopeFacts& facts) : experts_(facts.experts) {}
  void want(const StepFacts&, ExpertCounts::Needs& needs) override { needs.micro_batch = true; }
  std::vector<double> fractions(const RoutedMicroStep& seen, const std::vector<double>&) override {
    return for_each_sequence(fractions_by_row(seen.counted.micro_batch, experts_), seen.counted.sequences,
                             experts_);
  }

 private:
  std::int64_t experts_;
};

}  // namespace

LoadScopeKind micro_batch_scope() {
  return {.scope = BalanceScope::micro_batch,
          .make = [](const BalanceRecipe&, const ScopeFacts& facts) -> std::unique_ptr<LoadScope> {
            return std::make_unique<MicroBatchScope>(facts);
          },
          .loads = [](const RoutedMicroStep& seen) -> LoadSets {
            return {seen.counted.micro_batch, seen.step.speaks_for_micro_batch()};
          }};
}

}  // namespace conclave
