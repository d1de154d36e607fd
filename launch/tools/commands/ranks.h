// `conclave ranks`: where each rank of a run is, or was when it died.
#pragma once

#include <string>
#include <vector>

namespace conclave {

int run_ranks(const std::vector<std::string>& arguments);

}  // namespace conclave
