// `conclave extract`: a smaller checkpoint with the experts that one domain needs.
#pragma once

#include <string>
#include <vector>

namespace conclave {

/// `arguments` are those after the word extract. Returns the exit code.
int run_extract(const std::vector<std::string>& arguments);

}  // namespace conclave
