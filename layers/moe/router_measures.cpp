#include "layers/moe/router_measures.h"

#include <cmath>
#include <limits>

#include "framework/tensor/host_copies.h"

namespace conclave {
namespace {

template <class T>
RouterMeasures measure(const std::vector<std::int32_t>& chosen, std::int64_t top_k,
                       const std::vector<T>& probabilities, std::int64_t experts) {
  const std::int64_t tokens = static_cast<std::int64_t>(probabilities.size()) / experts;
  std::vector<RouterMeasures> of_token(static_cast<std::size_t>(tokens));
#pragma omp parallel for
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int32_t* choice = chosen.data() + t * top_k;
    const T* p = probabilities.data() + t * experts;
    if (choice[0] < 0) continue;  // padding
    RouterMeasures& measures = of_token[static_cast<std::size_t>(t)];
    for (std::int64_t k = 0; k < top_k; ++k)
      if (choice[k] >= 0) measures.chosen_probability += static_cast<double>(p[choice[k]]);
    for (std::int64_t e = 0; e < experts; ++e)
      if (const auto value = static_cast<double>(p[e]); value > 0)
        measures.entropy -= value * std::log(value);
  }
  RouterMeasures sums;  // in the order of the tokens, whatever the threads
  for (const RouterMeasures& measures : of_token) {
    sums.chosen_probability += measures.chosen_probability;
    sums.entropy += measures.entropy;
  }
  return sums;
}

}  // namespace

std::vector<RouterMeasures> measure_routers(const std::vector<RouterStatistics>& layers) {
  std::vector<Tensor> tensors;
  for (const RouterStatistics& layer : layers) {
    if (!layer.probabilities.defined()) {
      constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
      return std::vector<RouterMeasures>(layers.size(), {unknown, unknown});
    }
    tensors.insert(tensors.end(), {layer.chosen, layer.probabilities});
  }
  const HostCopies copies(tensors);
  std::vector<RouterMeasures> measured;
  for (std::size_t i = 0; i < layers.size(); ++i)
    with_float_type(layers[i].probabilities.dtype(), [&](auto zero) {
      measured.push_back(measure(copies.of<std::int32_t>(2 * i), layers[i].chosen.dim(1),
                                 copies.of<decltype(zero)>(2 * i + 1), layers[i].probabilities.dim(1)));
    });
  return measured;
}

}  // namespace conclave
