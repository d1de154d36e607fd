// `conclave bench`: what this machine can do, and what Conclave does on it, side by side.
#pragma once

#include <string>
#include <vector>

namespace conclave {

/// `arguments` are those after the word bench. Returns the exit code.
int run_bench(const std::vector<std::string>& arguments);

}  // namespace conclave
