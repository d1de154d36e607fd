// The selection bias of auxiliary-loss-free balancing (Wang et al., arXiv 2408.15664): a number for each
// expert that is added to its score when experts are chosen, and nowhere else. After each step it moves by a
// fixed rate towards less load: bias_i += rate * sign(mean load - load_i). No gradient, no loss.
// Load is that of a set of tokens: the whole step, or narrower. For narrower sets the mean of the sets' signs
// over the step is taken, so that all ranks move alike.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "framework/base/words.h"
#include "framework/recipe/requirements.h"

namespace conclave {

class Tensor;

/// The tokens whose load a bias follows.
enum class BiasScope { sequence, micro_batch, data_parallel, global_batch };
constexpr auto words_of(BiasScope) {
  return std::array{Word{BiasScope::sequence, "sequence"}, Word{BiasScope::micro_batch, "micro_batch"},
                    Word{BiasScope::data_parallel, "data_parallel"},
                    Word{BiasScope::global_batch, "global_batch"}};
}

/// A bias on the choice of experts alone, moved against their load after each step; no gradient, no loss.
struct SelectionBiasRecipe {
  double rate = 0;  // 0: no bias
  BiasScope scope = BiasScope::global_batch;
  bool recentre = false;        // keep the mean over experts at zero
  std::int64_t last_step = -1;  // stands still after this step; -1: moves to the end
  bool operator==(const SelectionBiasRecipe&) const = default;
};

inline void describe(Visitor& v, SelectionBiasRecipe& b) {
  v.key({"rate", &b.rate, "how far it moves after each step; 0: no bias", at_least(0)});
  v.key({"scope", &b.scope,
         "the tokens whose load it follows: sequence, micro_batch, data_parallel or global_batch"});
  v.key({"recentre", &b.recentre, "keep the mean over experts at zero", {}});
  v.key({"last_step",
         &b.last_step,
         "it stands still after this step, the first being 0; -1: moves to the end",
         {.least = -1, .most = largest_count}});
}

/// Its name in checkpoints: float64 [layers, experts].
constexpr const char* selection_bias_name = "state/selection_bias";

/// Adds sign(mean load - load) of every set to sums [layers, experts]: counts [layers, sets, experts]. Sets
/// without assignments say nothing. Returns how many sets of one layer spoke.
std::int64_t add_load_signs(const std::vector<std::int64_t>& counts, std::int64_t layers,
                            std::int64_t experts, std::vector<double>& sums);

/// bias float64 [layers, experts], in place; load_signs [layers, experts], the mean over sets.
void move_selection_bias(const Tensor& bias, const std::vector<double>& load_signs,
                         const SelectionBiasRecipe& recipe);

}  // namespace conclave
