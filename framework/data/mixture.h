// The weights of a mixture of datasets, and how often a run goes over each of them.
#pragma once

#include <cstdint>
#include <vector>

#include "framework/data/recipe.h"

namespace conclave {

/// True where a recipe says `weight: size`.
bool weighs_by_size(const DatasetRecipe& dataset);

/// The weights of data.train as numbers; `tokens`: of each dataset. Those that weigh by size have 1 on
/// average, each in proportion to its tokens. So a list of `size` alone goes over every dataset equally
/// often.
std::vector<double> mixture_weights(const std::vector<DatasetRecipe>& train,
                                    const std::vector<std::int64_t>& tokens);

/// [datasets]; how often a run of so many sequences goes over each dataset, whose whole sequences are given.
/// The numbers are right to within a block of the mixture, which is how exactly the weights are kept.
std::vector<double> planned_passes(const std::vector<double>& weights,
                                   const std::vector<std::int64_t>& whole_sequences, std::int64_t sequences);

}  // namespace conclave
