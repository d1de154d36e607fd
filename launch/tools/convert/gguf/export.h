// Writes a checkpoint as one GGUF file for llama.cpp and the programs that build on it. It holds one matrix
// at a time, whatever layout wrote the checkpoint. The file is there whole or not at all.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "launch/tools/convert/gguf/number_type.h"

namespace conclave::gguf {

struct ExportOptions {
  std::filesystem::path checkpoint;  // a step-... directory, a checkpoints directory or a run directory
  std::filesystem::path file;        // must not exist
  std::string architecture;          // of llama.cpp; empty: the first that can express the model
  NumberType type = NumberType::f32;
  std::string tokenizer;  // in place of the recipe's; "none": no tokenizer
};

/// Verifies every byte of the checkpoint first. `say` is given lines about the progress. Throws
/// Fault::request where llama.cpp would compute another model or read text otherwise, with the reason, and
/// Fault::data where the checkpoint is damaged.
void export_model(const ExportOptions& options, const std::function<void(const std::string&)>& say);

}  // namespace conclave::gguf
