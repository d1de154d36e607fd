// TokenDescription is PREFIX.json, which `conclave tokenize` writes beside PREFIX.bin and PREFIX.idx. It says
// what the ids mean. Megatron's files come without one; then nothing is known and nothing is checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace conclave {

struct TokenDescription {
  std::string domain;
  std::string tokenizer;    // as it was named when the text was tokenized
  std::string fingerprint;  // see tokenizer_fingerprint; empty: not known
  std::int64_t vocab_size = 0;
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
};

std::string to_json(const TokenDescription& description);

/// Nothing when PREFIX.json does not exist; an Error when it cannot be read as a description.
std::optional<TokenDescription> read_token_description(const std::string& prefix);

}  // namespace conclave
