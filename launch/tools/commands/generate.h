// `conclave generate`: samples text from a checkpoint.
#pragma once

#include <string>
#include <vector>

namespace conclave {

/// `arguments` are those after the word generate. Returns the exit code.
int run_generate(const std::vector<std::string>& arguments);

}  // namespace conclave
