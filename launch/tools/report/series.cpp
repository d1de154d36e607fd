#include "launch/tools/report/series.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace conclave {

std::vector<Stretch> stretches(std::size_t size, std::size_t most) {
  const std::size_t count = std::min(size, std::max<std::size_t>(most, 1));
  std::vector<Stretch> parts;
  for (std::size_t i = 0; i < count; ++i) parts.push_back({i * size / count, (i + 1) * size / count - 1});
  return parts;
}

Series thinned(const Series& series, std::size_t most) {
  if (series.size() <= most) return series;
  Series thin;
  const auto keep = [&](std::size_t i) {
    if (!thin.step.empty() && thin.step.back() >= series.step[i]) return;
    thin.step.push_back(series.step[i]);
    thin.value.push_back(series.value[i]);
  };
  keep(0);
  for (const Stretch& stretch : stretches(series.size(), most / 2)) {
    constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
    std::size_t least = none, largest = none;
    for (std::size_t i = stretch.first; i <= stretch.last; ++i) {
      if (std::isnan(series.value[i])) continue;
      if (least == none || series.value[i] < series.value[least]) least = i;
      if (largest == none || series.value[i] > series.value[largest]) largest = i;
    }
    if (least == none) {
      keep(stretch.first);
      continue;
    }
    keep(std::min(least, largest));
    if (least != largest) keep(std::max(least, largest));
  }
  keep(series.size() - 1);
  return thin;
}

std::vector<double> finite(std::vector<double> values) {
  std::erase_if(values, [](double value) { return !std::isfinite(value); });
  return values;
}

}  // namespace conclave
