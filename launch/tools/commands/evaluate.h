// `conclave evaluate`: loss, perplexity and expert specialisation of a checkpoint, by domain.
#pragma once

#include <string>
#include <vector>

namespace conclave {

/// `arguments` are those after the word evaluate. Returns the exit code.
int run_evaluate(const std::vector<std::string>& arguments);

}  // namespace conclave
