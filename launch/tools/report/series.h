// Series: numbers by step as a run has logged them, thinned for the eye.
#pragma once

#include <cstdint>
#include <vector>

namespace conclave {

/// y by step; NaN where a step has no number.
struct Series {
  std::vector<std::int64_t> step;  // ascending
  std::vector<double> value;
  std::size_t size() const { return step.size(); }
};

/// About `most` points that draw the same curve: the first and the last one, and of each of most / 2
/// stretches with as many points the least and the largest value, at their own steps and in their order. A
/// stretch without a number keeps its first step as NaN. A series that is short enough comes back as it is.
Series thinned(const Series& series, std::size_t most);

/// The first and last index of each of at most `most` stretches of about equal length that `size` things are
/// divided into, in order.
struct Stretch {
  std::size_t first, last;
};
std::vector<Stretch> stretches(std::size_t size, std::size_t most);

/// The values that are numbers.
std::vector<double> finite(std::vector<double> values);

}  // namespace conclave
