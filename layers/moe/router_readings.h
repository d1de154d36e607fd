// RouterReading: what a layer's router left behind in a micro-step, on the host, where objectives and the
// counts behind them are computed. All layers are read together: the host waits once per micro-step.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "framework/autograd/ops/routing.h"

namespace conclave {

struct RouterReading {
  std::int64_t sequences = 0, experts = 0, tokens = 0, top_k = 0, first_token = 0;
  std::vector<std::int64_t> counts;      // [sequences, experts]
  std::vector<double> probability_sums;  // [sequences, experts]
  double z_sum = 0;
  std::vector<std::int32_t> chosen;  // [tokens, top_k]; empty unless asked for
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> others;  // RouterStatistics::others
  std::vector<std::pair<std::string, double>> numbers;                    // RouterStatistics::numbers

  /// The counts that a method left under this name; none where it left none.
  std::vector<std::int64_t> other(const std::string& name) const;
  /// The number that a method left under this name; NaN where it left none.
  double number(const std::string& name) const;
};

enum class ReadChosen { no, yes };

/// The readings of all layers, in their order.
std::vector<RouterReading> read_routers(const std::vector<RouterStatistics>& layers, ReadChosen chosen);

}  // namespace conclave
