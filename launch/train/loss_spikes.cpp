#include "launch/train/loss_spikes.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace conclave {

std::string LossSpikes::add(double loss) {
  if (!std::isfinite(loss)) return "";
  const std::int64_t known = std::min(count_, window);
  double sum = 0, squares = 0;
  for (std::int64_t i = 0; i < known; ++i) sum += losses_[static_cast<std::size_t>(i)];
  const double mean = known > 0 ? sum / static_cast<double>(known) : loss;
  for (std::int64_t i = 0; i < known; ++i) {
    const double distance = losses_[static_cast<std::size_t>(i)] - mean;
    squares += distance * distance;
  }
  const double deviation = known > 0 ? std::sqrt(squares / static_cast<double>(known)) : 0;
  const bool spike = known >= fewest && loss > mean + 6 * deviation && loss > mean + 0.5;
  spikes_in_row_ = spike ? spikes_in_row_ + 1 : 0;
  if (!spike || spikes_in_row_ > fewest) losses_[static_cast<std::size_t>(count_++ % window)] = loss;
  if (!spike || spikes_in_row_ > 1) return "";
  char text[128];
  std::snprintf(text, sizeof text, "the loss is %.4f after a mean of %.4f with a deviation of %.4f", loss,
                mean, deviation);
  return text;
}

}  // namespace conclave
