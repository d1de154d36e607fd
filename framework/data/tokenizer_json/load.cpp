// Text to added tokens, normalized pieces, words, ids; and back.
#include "framework/data/tokenizer_json/load.h"

#include <algorithm>

#include "framework/base/error.h"
#include "framework/data/tokenizer_json/rules.h"

namespace conclave {
namespace {

/// Keeps positions within a word far from 32-bit limits, and ICU's.
constexpr std::size_t longest_text = std::size_t{1} << 30;

std::vector<AddedToken> those(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> chosen;
  std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(chosen),
               [&](const AddedToken& token) { return token.normalized == normalized; });
  return chosen;
}

class JsonTokenizer final : public Tokenizer {
 public:
  JsonTokenizer(const std::string& path, TokenizerRules rules)
      : path_(path),
        as_it_came_(those(rules.added, false)),
        normalized_(those(rules.added, true)),
        byte_pairs_(std::move(rules.byte_pairs)),
        rules_(std::move(rules)) {}

  std::vector<std::int32_t> encode(std::string_view text) const override {
    check(text.size() <= longest_text, Fault::data, "tokenizer ", path_, ": one text of ", text.size(),
          " bytes came, at most ", longest_text, " are possible; split the document");
    Encoding encoding;
    encoding.tokens.reserve(text.size() / 4 + 1);
    encoding.text = text.data();
    while (!text.empty()) {
      const std::size_t valid = std::min(first_invalid_utf8(text), text.size());
      as_it_came_.split(text.substr(0, valid), [&](std::string_view part, const AddedToken* token) {
        if (token != nullptr)
          encoding.tokens.push_back(token->id);
        else
          encode_part(part, encoding);
      });
      text.remove_prefix(valid);
      std::size_t invalid = 0;  // bytes without a character are a word of their own
      while (invalid < text.size() && first_invalid_utf8(text.substr(invalid, 4)) == 0) ++invalid;
      if (invalid > 0) byte_pairs_.encode(text.substr(0, invalid), encoding.tokens);
      text.remove_prefix(invalid);
    }
    return std::move(encoding.tokens);
  }

  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string text;
    bool is_first = true;  // of those that stand for text
    for (const std::int32_t token : tokens) {
      if (token < 0 || token >= vocab_size()) continue;
      std::string_view piece = rules_.texts[static_cast<std::size_t>(token)];
      if (is_first && rules_.characters && rules_.characters->first_token_has_no_marks)
        piece.remove_prefix(std::min(piece.find_first_not_of(' '), piece.size()));
      is_first = is_first && rules_.texts[static_cast<std::size_t>(token)].empty();
      text += piece;
    }
    std::size_t spaces = 0;
    if (rules_.characters)
      while (spaces < rules_.characters->strip && spaces < text.size() && text[spaces] == ' ') ++spaces;
    return text.substr(spaces);
  }

  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(rules_.texts.size()); }
  std::int32_t end_of_document() const override { return rules_.end_of_document; }

 private:
  struct Encoding {
    const char* text = nullptr;  // all of it
    PatternSearch search;
    std::vector<std::int32_t> tokens;
  };

  void encode_part(std::string_view part, Encoding& encoding) const {
    const bool begins_text = part.data() == encoding.text;
    std::string normal;
    if (!rules_.normalizers.empty()) part = normal = normalize(std::string(part), rules_.normalizers);
    normalized_.split(part, [&](std::string_view piece, const AddedToken* token) {
      if (token != nullptr)
        encoding.tokens.push_back(token->id);
      else if (rules_.characters)
        encode_characters(piece, begins_text && piece.data() == part.data(), encoding);
      else
        encode_piece(piece, 0, encoding);
    });
  }

  void encode_characters(std::string_view piece, bool begins_text, Encoding& encoding) const {
    const auto word = [&](std::string_view text) { byte_pairs_.encode(text, encoding.tokens); };
    if (rules_.metaspace) return rules_.metaspace->split(piece, begins_text, word);
    if (rules_.splits.empty()) return word(piece);
    rules_.splits[0].split(piece, encoding.search, word);
  }

  /// From the pre-tokenizer's step on, each on what the one before gives.
  void encode_piece(std::string_view piece, std::size_t step, Encoding& encoding) const {
    if (step < rules_.splits.size())
      return rules_.splits[step].split(
          piece, encoding.search, [&](std::string_view part) { encode_piece(part, step + 1, encoding); });
    std::string prefixed;
    if (rules_.add_prefix_space && !piece.starts_with(' ')) {
      prefixed = " " + std::string(piece);
      piece = prefixed;
    }
    const auto word = [&](std::string_view bytes) { byte_pairs_.encode(bytes, encoding.tokens); };
    if (rules_.words)
      rules_.words->split(piece, encoding.search, word);
    else
      word(piece);
  }

  std::string path_;
  AddedTokens as_it_came_, normalized_;
  BytePairs byte_pairs_;
  TokenizerRules rules_;  // without what was moved into the members before
};

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer_json(const std::string& path) {
  return std::make_unique<JsonTokenizer>(path, read_tokenizer_rules(path));
}

}  // namespace conclave
