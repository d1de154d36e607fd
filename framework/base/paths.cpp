#include "framework/base/paths.h"

#include <filesystem>

namespace conclave {

std::string normal_path(const std::string& path) {
  return std::filesystem::path(path).lexically_normal().string();
}

bool same_path(const std::string& a, const std::string& b) {
  return normal_path(a) == normal_path(b);
}

}  // namespace conclave
