#include "layers/moe/load_scope.h"

#include <algorithm>

#include "layers/moe/methods.h"

namespace conclave {

const LoadScopeKind& load_scope(BalanceScope scope) {
  const std::vector<LoadScopeKind>& kinds = load_scopes();
  const auto found = std::find_if(kinds.begin(), kinds.end(),
                                  [&](const LoadScopeKind& kind) { return kind.scope == scope; });
  check(found != kinds.end(), "load_scope: the scope ", scope,
        " came, which layers/moe/methods.cpp does not list");
  return *found;
}

ExpertCounts::Counts counts_of_sets(std::size_t index, const RoutedMicroStep& seen, const ScopeFacts& facts) {
  const ExpertCounts::Known& counted = seen.counted;
  const TokenSets& sets = *seen.step.needs().sets[index];
  ExpertCounts::Counts counts;
  for (std::int64_t layer = 0; layer < facts.layers; ++layer)
    for (std::int64_t b = 0; b < counted.sequences; ++b) {
      const std::int64_t row = layer * sets.sets() + sets.set_of(seen.micro_step, b);
      const auto begin = counted.sets[index].begin() + row * facts.experts;
      counts.insert(counts.end(), begin, begin + facts.experts);
    }
  return counts;
}

std::vector<double> for_each_sequence(const std::vector<double>& shared, std::int64_t sequences,
                                      std::int64_t experts) {
  std::vector<double> fractions;
  for (auto begin = shared.begin(); begin != shared.end(); begin += experts)
    for (std::int64_t s = 0; s < sequences; ++s) fractions.insert(fractions.end(), begin, begin + experts);
  return fractions;
}

}  // namespace conclave
