#include "framework/data/mixture.h"

#include <cmath>
#include <numeric>

#include "framework/base/error.h"

namespace conclave {

bool weighs_by_size(const DatasetRecipe& dataset) {
  return std::isinf(dataset.weight);
}

std::vector<double> mixture_weights(const std::vector<DatasetRecipe>& train,
                                    const std::vector<std::int64_t>& tokens) {
  check(train.size() == tokens.size(), "mixture_weights: ", train.size(), " datasets and ", tokens.size(),
        " sizes came");
  double all = 0, by_size = 0;
  for (std::size_t i = 0; i < train.size(); ++i) {
    if (!weighs_by_size(train[i])) continue;
    all += static_cast<double>(tokens[i]);
    by_size += 1;
  }
  std::vector<double> weights;
  for (std::size_t i = 0; i < train.size(); ++i)
    weights.push_back(weighs_by_size(train[i]) ? static_cast<double>(tokens[i]) * by_size / all
                                               : train[i].weight);
  return weights;
}

std::vector<double> planned_passes(const std::vector<double>& weights,
                                   const std::vector<std::int64_t>& whole_sequences, std::int64_t sequences) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<double> passes;
  for (std::size_t i = 0; i < weights.size(); ++i)
    passes.push_back(weights[i] / sum * static_cast<double>(sequences) /
                     static_cast<double>(whole_sequences[i]));
  return passes;
}

}  // namespace conclave
