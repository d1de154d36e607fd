// JSON files of a Hugging Face model directory, in and out.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace conclave {

/// Reads a file that must be a JSON object in which each key is there once. Throws Fault::data for any other.
nlohmann::json read_json_object(const std::filesystem::path& path);

/// Writes durably. Throws Fault::data where a text in it is not UTF-8, as a tokenizer's piece may be.
void write_json(const std::filesystem::path& path, const nlohmann::ordered_json& json);

}  // namespace conclave
