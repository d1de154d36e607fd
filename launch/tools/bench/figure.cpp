#include "launch/tools/bench/figure.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "framework/base/error.h"

namespace conclave {
namespace {

double least(const std::vector<double>& values) {
  return *std::min_element(values.begin(), values.end());
}

double most(const std::vector<double>& values) {
  return *std::max_element(values.begin(), values.end());
}

struct Scale {
  double factor;
  const char* unit;
};

Scale scale_of(const std::string& unit, double value) {
  if (unit == "flop/s") return {1e-9, "GF/s"};
  if (unit == "B/s") return {1e-9, "GB/s"};
  if (unit == "B") return value < 1e6 ? Scale{1, "B"} : Scale{1e-6, "MB"};
  if (unit == "s") return value < 1e-3 ? Scale{1e6, "us"} : value < 1 ? Scale{1e3, "ms"} : Scale{1, "s"};
  return {1, unit.c_str()};
}

}  // namespace

double median(std::vector<double> values) {
  check(!values.empty(), "median: no number came, expected at least one");
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

double relative_spread(const std::vector<double>& values) {
  const double middle = median(values);
  return middle == 0 ? 0 : (most(values) - least(values)) / std::abs(middle);
}

std::vector<double> ratios(const Figure& figure) {
  const std::size_t count = figure.limits.size();
  check(count <= 1 || count == figure.values.size(), "ratios: ", figure.name, " has ", figure.values.size(),
        " values and ", count, " limits, expected as many, or one limit for all");
  std::vector<double> result;
  for (std::size_t i = 0; count > 0 && i < figure.values.size(); ++i)
    result.push_back(figure.values[i] / figure.limits[count == 1 ? 0 : i]);
  return result;
}

nlohmann::ordered_json to_json(const Figure& figure) {
  nlohmann::ordered_json json{{"subject", figure.subject},
                              {"name", figure.name},
                              {"unit", figure.unit},
                              {"better", figure.better == Better::higher ? "higher" : "lower"},
                              {"value", median(figure.values)},
                              {"min", least(figure.values)},
                              {"max", most(figure.values)},
                              {"spread", relative_spread(figure.values)},
                              {"repeats", figure.values.size()}};
  if (const std::vector<double> shares = ratios(figure); !shares.empty()) {
    json["limit"] = {{"name", figure.limit}, {"value", median(figure.limits)}};
    json["ratio"] = median(shares);
    json["ratio_min"] = least(shares);
    json["ratio_max"] = most(shares);
  }
  return json;
}

std::string to_line(const Figure& figure) {
  const double value = median(figure.values);
  const Scale scale = scale_of(figure.unit, value);
  const bool repeated = figure.values.size() > 1;
  char text[256];
  std::snprintf(text, sizeof text, "  %-46s %10.2f %-8s ", figure.name.c_str(), value * scale.factor,
                scale.unit);
  std::string line = text;
  std::snprintf(text, sizeof text, "+-%3.0f %%", 50 * relative_spread(figure.values));
  line += repeated ? text : "       ";
  const std::vector<double> shares = ratios(figure);
  if (shares.empty()) return line;
  std::snprintf(text, sizeof text, "  %7.3f ", median(shares));
  line += text;
  std::snprintf(text, sizeof text, "(%.3f to %.3f) ", least(shares), most(shares));
  return line + (repeated ? text : "") + "of " + figure.limit;
}

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double seconds_on(Device& device, const std::function<void()>& work) {
  const auto finish = [&device] {
    if (const auto event = device.record(device.stream())) event->wait();
  };
  finish();
  return seconds_of([&] {
    work();
    finish();
  });
}

double processor_seconds(const std::function<void()>& work) {
  const auto now = [] {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const double begin = now();
  work();
  return (now() - begin) / omp_get_max_threads();
}

}  // namespace conclave
