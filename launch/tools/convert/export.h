// Writes a checkpoint as a Hugging Face model directory: config.json, generation_config.json, safetensors and
// the tokenizer. It holds one tensor at a time, whatever layout wrote the checkpoint. The directory is there
// whole or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace conclave {

struct ExportOptions {
  std::filesystem::path checkpoint;  // a step-... directory, a checkpoints directory or a run directory
  std::filesystem::path directory;   // must not exist, or be empty
  std::string architecture;          // a model_type; empty: the first that can express the model
  bool bfloat16 = false;             // else float32
  std::uint64_t shard_bytes = 5'000'000'000;  // of tensors in one file, unless a single one is larger
  std::string tokenizer;                      // in place of the recipe's; "none": no tokenizer
};

/// Verifies every byte of the checkpoint first. `say` is given lines about the progress. Throws
/// Fault::request where no architecture can express the model, and Fault::data where the checkpoint is
/// damaged.
void export_model(const ExportOptions& options, const std::function<void(const std::string&)>& say);

/// "5GB", "500MB", "2GiB", "1000" -> bytes. Throws Fault::request for any other text.
std::uint64_t bytes_from_text(const std::string& text);

}  // namespace conclave
