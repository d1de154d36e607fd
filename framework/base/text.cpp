#include "framework/base/text.h"

#include <cmath>
#include <cstdio>
#include <iterator>

namespace conclave {

namespace {

/// Empty for a finite number.
std::string name_if_not_finite(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "infinity" : "-infinity";
  return "";
}

}  // namespace

std::string measured_text(double value) {
  if (const std::string name = name_if_not_finite(value); !name.empty()) return name;
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

std::string counted(std::int64_t number, const std::string& singular, const std::string& plural) {
  return std::to_string(number) + " " + (number == 1 ? singular : plural.empty() ? singular + "s" : plural);
}

std::string fixed(double value, int digits) {
  if (const std::string name = name_if_not_finite(value); !name.empty()) return name;
  char text[352];  // the largest double has 309 digits before its point
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string bytes_text(double bytes) {
  constexpr const char* units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  std::size_t unit = 0;
  while (bytes >= 999.5 && unit + 1 < std::size(units)) {
    bytes /= 1000;
    ++unit;
  }
  return fixed(bytes, unit == 0 ? 0 : 1) + " " + units[unit];
}

}  // namespace conclave
