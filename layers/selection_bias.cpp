#include "layers/selection_bias.h"

#include <numeric>

namespace conclave {

std::int64_t add_load_signs(const ExpertCounts::Counts& counts, std::int64_t layers, std::int64_t experts,
                            std::vector<double>& sums) {
  const std::int64_t sets =
      layers * experts > 0 ? static_cast<std::int64_t>(counts.size()) / (layers * experts) : 0;
  std::int64_t spoke = 0;
  for (std::int64_t row = 0; row < layers * sets; ++row) {
    const std::int64_t* load = counts.data() + row * experts;
    const std::int64_t all = std::accumulate(load, load + experts, std::int64_t{0});
    if (all == 0) continue;
    if (row < sets) ++spoke;
    // Exact in integers: the mean load is all / experts.
    for (std::int64_t i = 0; i < experts; ++i)
      sums[static_cast<std::size_t>(row / sets * experts + i)] +=
          (all > load[i] * experts) - (all < load[i] * experts);
  }
  return spoke;
}

void move_selection_bias(const Tensor& bias, const std::vector<double>& load_signs,
                         const SelectionBiasRecipe& recipe) {
  check(bias.elements() == static_cast<std::int64_t>(load_signs.size()),
        "move_selection_bias: ", load_signs.size(), " signs came for ", bias.elements(), " biases");
  kernels_of(bias).add_scaled(Tensor::from(load_signs, bias.shape(), bias.device()), recipe.rate, bias);
  if (!recipe.recentre) return;
  std::vector<double> values = bias.to_host<double>();
  const auto experts = static_cast<std::ptrdiff_t>(bias.dim(1));
  for (auto layer = values.begin(); layer != values.end(); layer += experts) {
    const double mean = std::accumulate(layer, layer + experts, 0.0) / static_cast<double>(experts);
    for (auto value = layer; value != layer + experts; ++value) *value -= mean;
  }
  bias.copy_from(Tensor::from(values, bias.shape()));
}

}  // namespace conclave
