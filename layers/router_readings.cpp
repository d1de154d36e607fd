#include "layers/router_readings.h"

#include "framework/tensor/host_copies.h"

namespace conclave {

std::vector<RouterReading> read_routers(const std::vector<RouterStatistics>& layers, ReadChosen chosen) {
  constexpr std::size_t per_layer = 5;
  std::vector<Tensor> tensors;
  for (const RouterStatistics& layer : layers)
    tensors.insert(tensors.end(), {layer.counts, layer.probability_sums.value, layer.z_sum.value,
                                   layer.dropped, chosen == ReadChosen::yes ? layer.chosen : Tensor()});
  const HostCopies copies(tensors);
  std::vector<RouterReading> readings;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const RouterStatistics& layer = layers[i];
    const std::size_t at = i * per_layer;
    const std::vector<double> z_sum = copies.of<double>(at + 2);
    const std::vector<std::int64_t> dropped = copies.of<std::int64_t>(at + 3);
    readings.push_back({.sequences = layer.counts.dim(0),
                        .experts = layer.counts.dim(1),
                        .tokens = layer.chosen.defined() ? layer.chosen.dim(0) : 0,
                        .top_k = layer.chosen.defined() ? layer.chosen.dim(1) : 0,
                        .first_token = layer.first_token,
                        .counts = copies.of<std::int64_t>(at),
                        .probability_sums = copies.of<double>(at + 1),
                        .z_sum = z_sum.empty() ? 0 : z_sum[0],
                        .chosen = copies.of<std::int32_t>(at + 4),
                        .dropped = dropped.empty() ? 0 : dropped[0]});
  }
  return readings;
}

}  // namespace conclave
