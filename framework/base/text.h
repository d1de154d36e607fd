// Numbers as sentences and tables show them, and the time since an instant.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace conclave {

/// The number with six digits. Here and below, numbers that are not finite are called NaN, infinity and
/// -infinity; a NaN shows no sign.
std::string measured_text(double value);
/// "1 token", "2 tokens". `plural` is given where the plural is not the singular with an s.
std::string counted(std::int64_t number, const std::string& singular, const std::string& plural = "");
/// The number with so many digits after the point.
std::string fixed(double value, int digits);
/// 1234567 -> "1.2 MB", in powers of ten, as network and disk are sold.
std::string bytes_text(double bytes);

inline double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace conclave
