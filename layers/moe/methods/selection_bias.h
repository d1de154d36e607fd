// The selection bias of auxiliary-loss-free balancing (Wang et al., arXiv 2408.15664): a number for each
// expert that is added to its score when experts are chosen, and nowhere else. After each step it moves by a
// fixed rate towards less load: bias_i += rate * sign(mean load - load_i). No gradient, no loss.
// Load is that of a set of tokens (the whole step, or narrower: the mean of the sets' signs over the step is
// then taken, so that all ranks move alike).
#pragma once

#include <vector>

#include "layers/moe/methods.h"

namespace conclave {

/// What checkpoints call it: float64 [layers, experts].
constexpr const char* selection_bias_name = "state/selection_bias";

/// Adds sign(mean load - load) of every set to sums [layers, experts]: counts [layers, sets, experts]. Sets
/// without assignments say nothing. Returns how many sets of one layer spoke.
std::int64_t add_load_signs(const ExpertCounts::Counts& counts, std::int64_t layers, std::int64_t experts,
                            std::vector<double>& sums);

/// bias float64 [layers, experts], in place; load_signs [layers, experts], the mean over sets.
void move_selection_bias(const Tensor& bias, const std::vector<double>& load_signs,
                         const SelectionBiasRecipe& recipe);

}  // namespace conclave
