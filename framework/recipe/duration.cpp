#include "framework/recipe/duration.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

namespace conclave {
namespace {

/// Digits alone, at most nine of them.
std::optional<double> whole(const std::string& text) {
  if (text.empty() || text.size() > 9 || text.find_first_not_of("0123456789") != std::string::npos) return {};
  return static_cast<double>(std::stol(text));
}

}  // namespace

std::optional<double> seconds_of_duration(const std::string& text) {
  const std::size_t dash = text.find('-');
  if (dash == std::string::npos && text.find(':') == std::string::npos) {
    double seconds = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    if (status != std::errc() || end != text.data() + text.size() || !std::isfinite(seconds) || seconds < 0)
      return {};
    return seconds;
  }
  std::vector<double> parts;
  const std::string clock = dash == std::string::npos ? text : text.substr(dash + 1);
  for (std::size_t begin = 0; begin <= clock.size();) {
    const std::size_t end = std::min(clock.find(':', begin), clock.size());
    const std::optional<double> part = whole(clock.substr(begin, end - begin));
    if (!part || parts.size() == 3) return {};
    parts.push_back(*part);
    begin = end + 1;
  }
  double days = 0;
  if (dash != std::string::npos) {
    const std::optional<double> part = whole(text.substr(0, dash));
    if (!part) return {};
    days = *part;
    parts.resize(3);  // after a day come hours first
  } else if (parts.size() == 2) {
    parts.insert(parts.begin(), 0);  // MM:SS
  }
  return ((days * 24 + parts[0]) * 60 + parts[1]) * 60 + parts[2];
}

}  // namespace conclave
