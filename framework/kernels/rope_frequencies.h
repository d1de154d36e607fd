// RopeFrequencies: the angles by which rotary positions turn. Pair i of `half` pairs turns by position *
// theta^(-i / half). A model that was stretched to a longer context turns more slowly.
#pragma once

#include <cmath>
#include <cstdint>

#include "framework/base/host_device.h"

namespace conclave {

struct RopeFrequencies {
  /// none: as theta says. linear: all divided by `factor` (Chen et al., arXiv 2306.15595). llama3: those with
  /// long waves divided, those with short waves kept, and the ones between in between (Llama 3.1).
  enum class Scaling { none, linear, llama3 };

  double theta = 10000;
  Scaling scaling = Scaling::none;
  double factor = 1;
  /// Of llama3: a frequency is kept where its wave fits high_freq_factor times into original_positions. It is
  /// divided where it does not fit low_freq_factor times.
  double low_freq_factor = 1, high_freq_factor = 4, original_positions = 8192;

  bool operator==(const RopeFrequencies&) const = default;
};

/// The angle of pair i between two neighbouring positions. In float64: position * frequency in float32 loses
/// digits at long contexts.
HOST_DEVICE inline double rope_frequency(const RopeFrequencies& f, std::int64_t i, std::int64_t half) {
  const double plain = std::pow(f.theta, -static_cast<double>(i) / static_cast<double>(half));
  if (f.scaling == RopeFrequencies::Scaling::none) return plain;
  const double divided = plain / f.factor;
  if (f.scaling == RopeFrequencies::Scaling::linear) return divided;
  const double waves = f.original_positions * plain * 0.15915494309189535;  // / 2 pi
  if (waves > f.high_freq_factor) return plain;
  if (waves < f.low_freq_factor) return divided;
  const double share = (waves - f.low_freq_factor) / (f.high_freq_factor - f.low_freq_factor);
  return (1 - share) * divided + share * plain;
}

}  // namespace conclave
