// conclave import: a Hugging Face model directory as the first checkpoint of a run.
#pragma once

#include <string>
#include <vector>

namespace conclave {

int run_import(const std::vector<std::string>& arguments);

}  // namespace conclave
