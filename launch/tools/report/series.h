// Series: numbers by step as a run has logged them, thinned for the eye.
#pragma once

#include <cstdint>
#include <vector>

namespace conclave {

/// A Series has a value for each step; NaN where a step has no number.
struct Series {
  std::vector<std::int64_t> step;  // ascending
  std::vector<double> value;
  std::size_t size() const { return step.size(); }
};

/// Returns about `most` points that draw the same curve. The first and the last point stay. So do the least
/// and the largest value of each of most / 2 stretches with as many points. Values stay at their own steps
/// and in their order. A stretch without a number keeps its first step as NaN. A series that is short enough
/// comes back as it is.
Series thinned(const Series& series, std::size_t most);

/// A Stretch has its first and last index. `size` things are divided, in order, into at most `most` stretches
/// of about equal length.
struct Stretch {
  std::size_t first, last;
};
std::vector<Stretch> stretches(std::size_t size, std::size_t most);

/// Returns the values that are numbers.
std::vector<double> finite(std::vector<double> values);

}  // namespace conclave
