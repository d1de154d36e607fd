// conclave validate: checks a recipe without training and prints what it resolves to and what it will need.
#pragma once

#include <string>
#include <vector>

namespace conclave {

int run_validate(const std::vector<std::string>& arguments);

}  // namespace conclave
