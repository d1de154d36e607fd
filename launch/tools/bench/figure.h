// Figure: one thing that was measured, several times, each time beside what limits it. A ratio is taken
// within each repeat, so that both sides saw a shared machine in the same state; medians come last. A figure
// does not know what its ratio ought to be.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "framework/device/device.h"

namespace conclave {

enum class Better { higher, lower };

struct Figure {
  std::string subject;         // products, kernels, memory, collectives, checkpoint, layers, generate, train
  std::string name;            // what was measured
  std::string unit;            // flop/s, B/s, s, B, tokens/s, calls
  std::vector<double> values;  // one per repeat
  std::string limit{};         // what it is held against; empty: nothing
  std::vector<double> limits{};  // in the same unit, one per repeat or one for all
  Better better = Better::higher;
};

/// Returns the median of at least one number.
double median(std::vector<double> values);
/// (largest - smallest) / median; 0 where there is no median to divide by.
double relative_spread(const std::vector<double>& values);
/// value / limit of each repeat; empty without a limit.
std::vector<double> ratios(const Figure& figure);

/// subject, name, unit, better, value (median), min, max, spread, repeats; with a limit: limit {name, value},
/// ratio (median), ratio_min, ratio_max.
nlohmann::ordered_json to_json(const Figure& figure);
/// Writes a line of text with the same numbers, in units that a reader can take in.
std::string to_line(const Figure& figure);

/// Returns the wall-clock seconds of some work.
double seconds_of(const std::function<void()>& work);
/// Returns the same for work that is queued on a device: from an empty queue until all of it is done.
double seconds_on(Device& device, const std::function<void()>& work);
/// Returns the seconds of processors that this process took for the work, over its OpenMP threads. On a
/// machine that others use too, that is what the wall clock would have said on a quiet one. Waiting for other
/// ranks counts where MPI spins.
double processor_seconds(const std::function<void()>& work);

}  // namespace conclave
