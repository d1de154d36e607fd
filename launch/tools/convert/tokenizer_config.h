// tokenizer_config.json, and the things that it names. transformers takes the special tokens from this file
// beside a tokenizer.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "launch/tools/convert/token_roles.h"

namespace conclave {

/// The key by which Conclave knows the tokenizers that it exported.
constexpr const char* own_tokenizer_key = "conclave_tokenizer";

std::filesystem::path tokenizer_config_beside(const std::filesystem::path& tokenizer);

/// Returns a special token, which transformers writes as a text or as an object with a content; empty where
/// the key is not there. Throws Fault::data for anything else.
std::string special_token(const nlohmann::json& config, const std::string& key,
                          const std::filesystem::path& file);

/// Writes a tokenizer_config.json. It adds nothing to a text, as training has nothing before a prompt.
void write_tokenizer_config(const std::filesystem::path& directory, const char* kind, const TokenRoles& roles,
                            std::int64_t sequence_length, const char* tokenizer_class);

/// Writes a tokenizer_config.json that was brought along, with the roles and the length that training gave
/// them.
void write_adapted_tokenizer_config(const std::filesystem::path& brought,
                                    const std::filesystem::path& directory, const TokenRoles& roles,
                                    std::int64_t sequence_length);

}  // namespace conclave
