// Vocabulary: the tokens of a model as a GGUF file has them, and what llama.cpp needs to find them in text as
// Conclave does. Each kind of tokenizer is a function here. What llama.cpp would read otherwise is a
// Fault::request with the reason.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "framework/data/sentencepiece_model.h"
#include "framework/data/tokenizer.h"
#include "launch/tools/convert/gguf/file.h"
#include "launch/tools/convert/token_roles.h"

namespace conclave::gguf {

/// The values are those of llama.cpp.
enum class TokenType : std::int32_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct Token {
  std::string text;
  TokenType type = TokenType::normal;
  float score = 0;
};

/// The ids of special tokens.
struct SpecialIds {
  std::optional<std::int32_t> opening{}, ending{}, padding{}, unknown{};
};

struct Vocabulary {
  std::string model;                  // gpt2, llama or none
  std::string pre_tokenizer{};        // gpt2: the rule by which text becomes words
  std::vector<Token> tokens{};        // their places are the ids; as many as the model has rows
  std::vector<std::string> merges{};  // gpt2: "left right", the best first
  bool adds_space_prefix = false;     // llama: a space is put before a text
  TokenRoles roles{};
  SpecialIds ids{};

  void write(KeyValues& keys) const;
};

using Say = std::function<void(const std::string&)>;

/// Returns the vocabulary of a tokenizer (load_tokenizer's name) with so many rows.
Vocabulary vocabulary_of(const std::string& name, std::int64_t rows, const Say& say);

/// The parts of vocabulary_of. There is one for each kind, which returns the tokenizer's own tokens only.
Vocabulary vocabulary_of_bytes(const Tokenizer& tokenizer, std::int64_t rows);
Vocabulary vocabulary_of_pieces(const SentencePieceModel& model, const std::string& path,
                                const TokenRoles& roles, const Say& say);
Vocabulary vocabulary_of_rules(const std::string& path, const Say& say);
/// The last part names padding and the rows that no token uses, and takes the ids from the roles.
Vocabulary completed(Vocabulary vocabulary, const std::string& name, std::int64_t rows);

}  // namespace conclave::gguf
