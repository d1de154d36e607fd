// A token is balanced with the micro-batches that all replicas have at the same micro-step.
#include "layers/moe/balance_report.h"
#include "layers/moe/load_scope.h"

namespace conclave {
namespace {

class DataParallelScope final : public LoadScope {
 public:
  explicit DataParallelScope(const ScopeFacts& facts) : experts_(facts.experts) {}
  void want(const StepFacts&, ExpertCounts::Needs& needs) override { needs.all_ranks = true; }
  std::vector<double> fractions(const RoutedMicroStep& seen, const std::vector<double>&) override {
    return for_each_sequence(fractions_by_row(seen.counted.all_ranks, experts_), seen.counted.sequences,
                             experts_);
  }

 private:
  std::int64_t experts_;
};

}  // namespace

LoadScopeKind data_parallel_scope() {
  return {.scope = BalanceScope::data_parallel,
          .make = [](const BalanceRecipe&, const ScopeFacts& facts) -> std::unique_ptr<LoadScope> {
            return std::make_unique<DataParallelScope>(facts);
          },
          .loads = [](const RoutedMicroStep& seen) -> LoadSets {
            return {seen.counted.all_ranks, seen.step.speaks_for_all()};
          }};
}

}  // namespace conclave
