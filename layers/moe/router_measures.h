// RouterMeasures: how sharply a layer's router chose in a micro-batch, for evaluations. Sums over real
// tokens, so that micro-batches and ranks add up; they divide last.
#pragma once

#include <vector>

#include "framework/autograd/ops/routing.h"

namespace conclave {

/// Sums over this rank's tokens in one layer. p: RouterStatistics::probabilities, before any renormalisation.
struct RouterMeasures {
  double chosen_probability = 0;  // sum over tokens of sum over the chosen experts of p; top_k / experts a
                                  // token when p is uniform
  double entropy = 0;  // sum over tokens of -sum_i p_i log p_i, nats; log(experts) a token when uniform
};

/// The measures of all layers, in their order; the host waits once. Needs ModelInput::keep_probabilities. NaN
/// where a router of one's own leaves no Routing::probabilities.
std::vector<RouterMeasures> measure_routers(const std::vector<RouterStatistics>& layers);

}  // namespace conclave
