// Paths as a user may spell them in several ways.
#pragma once

#include <string>

namespace conclave {

/// The path without "./", "a/.." and doubled slashes; links are not followed.
std::string normal_path(const std::string& path);

/// True where two texts name the same place.
bool same_path(const std::string& a, const std::string& b);

}  // namespace conclave
