// conclave export: a checkpoint as a Hugging Face model directory or a GGUF file.
#pragma once

#include <string>
#include <vector>

namespace conclave {

int run_export(const std::vector<std::string>& arguments);

}  // namespace conclave
