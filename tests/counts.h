// How often a test does what it repeats: few times in every run of the tests, as often as the environment
// asks for in tests/full.sh.
#pragma once

#include <cstdlib>

namespace conclave::test {

inline int count_from_environment(const char* variable, int usual) {
  const char* text = std::getenv(variable);
  return text != nullptr && std::atoi(text) > 0 ? std::atoi(text) : usual;
}

}  // namespace conclave::test
