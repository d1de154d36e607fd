// TokenRoles: which token of a tokenizer means what, as config.json has it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace conclave {

class Tokenizer;
struct SentencePieceModel;
struct TokenizerRules;

struct TokenRole {
  std::int32_t id = -1;
  std::string text;
};

struct TokenRoles {
  /// The separator stands between documents: in training it ends one and opens the next, so it is both eos
  /// and bos.
  std::optional<TokenRole> separator;
  /// Padding is a token that stands in no text and is not the separator. Fine-tuning leaves padding out of
  /// the loss, and a model that never sees its end of text does not learn to stop.
  std::optional<TokenRole> padding;
};

/// The name that an export gives to a row of the vocabulary that no tokenizer uses.
constexpr const char* padding_text = "<|padding|>";

/// These return the roles of a tokenizer's tokens in a model of so many rows: of the tokenizer `bytes`, of a
/// SentencePiece model, and of a tokenizer.json at this path.
TokenRoles roles_of_bytes(const Tokenizer& tokenizer, std::int64_t vocab_size);
TokenRoles roles_of_pieces(const SentencePieceModel& model, const Tokenizer& tokenizer,
                           std::int64_t vocab_size);
TokenRoles roles_of_rules(const TokenizerRules& rules, const std::filesystem::path& path);

}  // namespace conclave
