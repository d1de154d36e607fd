// The tokenizer of a Hugging Face model directory: files that transformers encodes the same ids with, and the
// way back. A new kind of tokenizer is a branch in each of the two functions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace conclave {

/// Writes the files of a tokenizer (load_tokenizer's name; "none": nothing) and returns its end-of-document
/// token. Fault::request where it has more ids than the model.
std::optional<std::int32_t> export_tokenizer(const std::string& name, std::int64_t vocab_size,
                                             std::int64_t sequence_length,
                                             const std::filesystem::path& directory);

/// What data.tokenizer becomes: "bytes", or the path of a SentencePiece model that is copied into the run
/// directory; empty where the directory has no tokenizer that Conclave reads.
std::string import_tokenizer(const std::filesystem::path& directory, const std::filesystem::path& run);

}  // namespace conclave
