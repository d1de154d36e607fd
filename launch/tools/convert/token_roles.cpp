#include "launch/tools/convert/token_roles.h"

#include <algorithm>

#include "framework/data/sentencepiece_model.h"
#include "framework/data/tokenizer.h"
#include "framework/data/tokenizer_json/rules.h"
#include "framework/store/lookup.h"
#include "launch/tools/convert/json_file.h"
#include "launch/tools/convert/tokenizer_config.h"

namespace conclave {
namespace {

/// Names of tokens for padding in vocabularies that have one.
constexpr const char* padding_names[] = {padding_text, "<pad>", "<|pad|>", "[PAD]"};

bool is_padding_name(const std::string& text) {
  return std::find(std::begin(padding_names), std::end(padding_names), text) != std::end(padding_names);
}

/// The first row of the model that no id of the tokenizer uses.
std::optional<TokenRole> unused_row(std::int64_t ids, std::int64_t vocab_size) {
  if (ids >= vocab_size) return {};
  return TokenRole{static_cast<std::int32_t>(ids), padding_text};
}

/// A control piece that is named so, or a row behind the pieces, which tokenizer.json alone can add.
std::optional<TokenRole> padding_of(const SentencePieceModel& model, std::int64_t vocab_size) {
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePieceModel::Piece& piece = model.pieces[id];
    if (!is_padding_name(piece.text)) continue;
    if (piece.kind != SentencePieceModel::Kind::control) return {};
    return TokenRole{static_cast<std::int32_t>(id), piece.text};
  }
  if (model.has_other_rules) return {};
  return unused_row(static_cast<std::int64_t>(model.pieces.size()), vocab_size);
}

/// A token for padding that the files name, unless it is the separator.
std::optional<TokenRole> padding_of(const TokenizerRules& rules, const nlohmann::json& config,
                                    const std::filesystem::path& config_file) {
  const std::string configured = special_token(config, "pad_token", config_file);
  for (const AddedToken& token : rules.added) {
    const bool is_named =
        configured.empty() ? token.special && is_padding_name(token.content) : token.content == configured;
    if (is_named && token.id != rules.end_of_document) return TokenRole{token.id, token.content};
  }
  return {};
}

}  // namespace

TokenRoles roles_of_bytes(const Tokenizer& tokenizer, std::int64_t vocab_size) {
  return {.separator = TokenRole{tokenizer.end_of_document(), "<|endoftext|>"},
          .padding = unused_row(tokenizer.vocab_size(), vocab_size)};
}

TokenRoles roles_of_pieces(const SentencePieceModel& model, const Tokenizer& tokenizer,
                           std::int64_t vocab_size) {
  const std::int32_t end = tokenizer.end_of_document();
  return {.separator = TokenRole{end, model.pieces.at(static_cast<std::size_t>(end)).text},
          .padding = padding_of(model, vocab_size)};
}

TokenRoles roles_of_rules(const TokenizerRules& rules, const std::filesystem::path& path) {
  const std::filesystem::path config = tokenizer_config_beside(path);
  return {.separator = TokenRole{rules.end_of_document, rules.end_of_document_text},
          .padding = padding_of(rules, is_there(config) ? read_json_object(config) : nlohmann::json::object(),
                                config)};
}

}  // namespace conclave
