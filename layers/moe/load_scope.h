// LoadScope: the set of tokens that a token is balanced with. A balance term takes f of that set, a bias on
// the choice of experts its load. Each scope is a file of layers/moe/methods/, listed in
// layers/moe/methods.cpp.
#pragma once

#include <memory>
#include <vector>

#include "layers/moe/expert_counts.h"
#include "layers/moe/recipe.h"

namespace conclave {

/// The step that begins.
struct StepFacts {
  std::int64_t step = 0;    // 0-based
  std::int64_t tokens = 0;  // real ones, of the whole step
  BatchPlace place;
};

/// A micro-step whose routers have run.
struct RoutedMicroStep {
  std::int64_t micro_step = 0;
  const ExpertCounts::Step& step;
  const ExpertCounts::Known& counted;
  const std::vector<RouterReading>& readings;    // [layers]
  const std::vector<RouterStatistics>& routers;  // [layers]
};

/// The facts of a model and its run that scopes know.
struct ScopeFacts {
  std::int64_t layers = 0, experts = 0, top_k = 0;
  std::uint64_t seed = 0;
};

/// Counts of several sets of tokens, and whether this rank is the one that speaks for them.
struct LoadSets {
  const ExpertCounts::Counts& counts;  // [layers, sets, experts]
  bool speaks = false;
};

class LoadScope {
 public:
  virtual ~LoadScope() = default;
  /// Asks for what it counts in this step.
  virtual void want(const StepFacts& step, ExpertCounts::Needs& needs) = 0;
  /// f of the set that each sequence of the micro-batch is balanced with: [layers, sequences, experts].
  /// `previous`: f of the previous step, [layers, experts]; empty before the first.
  virtual std::vector<double> fractions(const RoutedMicroStep& seen, const std::vector<double>& previous) = 0;
  /// Where it stands for the whole step: what it took for the step's f at this micro-step, [layers, experts].
  virtual const std::vector<double>* estimate() const { return nullptr; }
};

struct LoadScopeKind {
  BalanceScope scope;
  std::unique_ptr<LoadScope> (*make)(const BalanceRecipe& term, const ScopeFacts& facts) = nullptr;
  /// Null: a bias on the choice cannot follow this scope, or waits for the end of the step to do so.
  LoadSets (*loads)(const RoutedMicroStep& seen) = nullptr;
  bool is_whole_step = false;
  std::int64_t (*period)(const BalanceRecipe& term, std::int64_t sequences) = nullptr;  // as Method's
};

const LoadScopeKind& load_scope(BalanceScope scope);
/// The counts of the set that each sequence of the micro-batch is balanced with, of
/// ExpertCounts::Needs::sets: [layers, sequences, experts].
ExpertCounts::Counts counts_of_sets(std::size_t index, const RoutedMicroStep& seen, const ScopeFacts& facts);
/// f of all tokens of a micro-step for each of its sequences: [layers, experts] -> [layers, sequences,
/// experts].
std::vector<double> for_each_sequence(const std::vector<double>& shared, std::int64_t sequences,
                                      std::int64_t experts);

}  // namespace conclave
