#include "launch/train/step_clock.h"

#include <algorithm>
#include <cstdio>
#include <numeric>

namespace conclave {
namespace {

/// In an even number the lower one: the faster of two ranks is the measure.
double lower_median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

void StepClock::begin(Activity activity, std::int64_t step) {
  close_part();
  world_.note(activity, step);
  activity_ = activity;
  running_ = true;
  begin_ = std::chrono::steady_clock::now();
  waited_ = world_.traffic().wait_seconds();
}

void StepClock::close_part() {
  if (!running_) return;
  running_ = false;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  parts_[static_cast<std::size_t>(activity_)] +=
      std::max(0.0, seconds - (world_.traffic().wait_seconds() - waited_));
}

void StepClock::end_step() {
  close_part();
  history_[static_cast<std::size_t>(steps_++ % window)] = parts_;
  parts_ = {};
}

StepClock::Parts StepClock::typical() const {
  Parts result{};
  const auto known = static_cast<std::size_t>(std::min(steps_, window));
  if (known == 0) return result;
  std::vector<double> values(known);
  for (std::size_t part = 0; part < result.size(); ++part) {
    for (std::size_t step = 0; step < known; ++step) values[step] = history_[step][part];
    result[part] = lower_median(values);
  }
  return result;
}

std::vector<SlowRank> name_slow_ranks(const std::vector<StepClock::Parts>& seconds) {
  constexpr double slow = 1.2, least = 1e-3;
  std::vector<double> sums;
  for (const StepClock::Parts& parts : seconds)
    sums.push_back(std::accumulate(parts.begin(), parts.end(), 0.0));
  const double median = lower_median(sums);
  std::vector<SlowRank> found;
  for (std::size_t rank = 0; rank < seconds.size(); ++rank) {
    if (sums[rank] <= std::max(slow * median, median + least)) continue;
    std::size_t worst = 0;
    double most = -1, typical_of_worst = 0;
    for (std::size_t part = 0; part < activities; ++part) {
      std::vector<double> of_ranks;
      for (const StepClock::Parts& parts : seconds) of_ranks.push_back(parts[part]);
      const double typical = lower_median(of_ranks), excess = seconds[rank][part] - typical;
      if (excess <= most) continue;
      most = excess;
      worst = part;
      typical_of_worst = typical;
    }
    char numbers[160];
    std::snprintf(numbers, sizeof numbers, "%.4f s a step where the median rank takes %.4f s", sums[rank],
                  median);
    char part_numbers[96];
    std::snprintf(part_numbers, sizeof part_numbers, "%.4f s against %.4f s", seconds[rank][worst],
                  typical_of_worst);
    found.push_back({static_cast<int>(rank),
                     join_text("Rank ", rank, " is slow: it computes for ", numbers, ", most of it in ",
                               name_of(static_cast<Activity>(worst)), " (", part_numbers, ").")});
  }
  return found;
}

std::vector<SlowRank> StepClock::slow_ranks() const {
  constexpr std::int64_t fewest = 20;
  if (steps_ < fewest) return {};
  const Parts own = typical();
  const Tensor all = Tensor::empty({world_.size(), activities}, DType::float64);
  world_.all_gather_rows(Tensor::from(std::vector<double>(own.begin(), own.end()), {1, activities}), all,
                         Purpose::statistics);
  const std::vector<double> values = all.to_host<double>();
  std::vector<Parts> seconds(static_cast<std::size_t>(world_.size()));
  for (std::size_t rank = 0; rank < seconds.size(); ++rank)
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(rank * activities), activities,
                seconds[rank].begin());
  return name_slow_ranks(seconds);
}

}  // namespace conclave
