// RouterReading: what a layer's router left behind in a micro-step, on the host, where the balance loss and
// the counts behind it are computed. All layers are read together: the host waits once per micro-step.
#pragma once

#include <cstdint>
#include <vector>

#include "framework/autograd/ops/routing.h"

namespace conclave {

struct RouterReading {
  std::int64_t sequences = 0, experts = 0, tokens = 0, top_k = 0, first_token = 0;
  std::vector<std::int64_t> counts;      // [sequences, experts]
  std::vector<double> probability_sums;  // [sequences, experts]
  double z_sum = 0;
  std::vector<std::int32_t> chosen;  // [tokens, top_k]; empty unless asked for
  std::int64_t dropped = 0;          // assignments beyond capacity
};

enum class ReadChosen { no, yes };

/// The readings of all layers, in their order.
std::vector<RouterReading> read_routers(const std::vector<RouterStatistics>& layers, ReadChosen chosen);

}  // namespace conclave
