// `conclave train`: pretrains from a recipe; see run_directory.h for what it leaves behind.
#pragma once

#include <string>
#include <vector>

namespace conclave {

/// `arguments` are those after the word train. Returns the exit code.
int run_train(const std::vector<std::string>& arguments);

}  // namespace conclave
