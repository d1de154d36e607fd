#include "layers/moe/router_readings.h"

#include <limits>

#include "framework/tensor/host_copies.h"

namespace conclave {

std::vector<std::int64_t> RouterReading::other(const std::string& name) const {
  for (const auto& [of_name, values] : others)
    if (of_name == name) return values;
  return {};
}

double RouterReading::number(const std::string& name) const {
  for (const auto& [of_name, value] : numbers)
    if (of_name == name) return value;
  return std::numeric_limits<double>::quiet_NaN();
}

std::vector<RouterReading> read_routers(const std::vector<RouterStatistics>& layers, ReadChosen chosen) {
  std::vector<Tensor> tensors;
  for (const RouterStatistics& layer : layers) {
    tensors.insert(tensors.end(), {layer.counts, layer.probability_sums.value, layer.z_sum.value,
                                   chosen == ReadChosen::yes ? layer.chosen : Tensor()});
    for (const NamedCounts& other : layer.others) tensors.push_back(other.values);
    for (const NamedNumber& number : layer.numbers) tensors.push_back(number.value);
  }
  const HostCopies copies(tensors);
  std::vector<RouterReading> readings;
  std::size_t at = 0;
  for (const RouterStatistics& layer : layers) {
    const std::vector<double> z_sum = copies.of<double>(at + 2);
    readings.push_back({.sequences = layer.counts.dim(0),
                        .experts = layer.counts.dim(1),
                        .tokens = layer.chosen.defined() ? layer.chosen.dim(0) : 0,
                        .top_k = layer.chosen.defined() ? layer.chosen.dim(1) : 0,
                        .first_token = layer.first_token,
                        .counts = copies.of<std::int64_t>(at),
                        .probability_sums = copies.of<double>(at + 1),
                        .z_sum = z_sum.empty() ? 0 : z_sum[0],
                        .chosen = copies.of<std::int32_t>(at + 3)});
    at += 4;
    for (const NamedCounts& other : layer.others)
      readings.back().others.emplace_back(other.name, copies.of<std::int64_t>(at++));
    for (const NamedNumber& number : layer.numbers)
      with_float_type(number.value.dtype(), [&](auto zero) {
        readings.back().numbers.emplace_back(number.name,
                                             static_cast<double>(copies.of<decltype(zero)>(at++).at(0)));
      });
  }
  return readings;
}

}  // namespace conclave
