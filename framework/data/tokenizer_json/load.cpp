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
    for (const std::int32_t token : tokens)
      if (token >= 0 && token < vocab_size()) text += rules_.texts[static_cast<std::size_t>(token)];
    return text;
  }

  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(rules_.texts.size()); }
  std::int32_t end_of_document() const override { return rules_.end_of_document; }

 private:
  struct Encoding {
    PatternSearch search;
    std::vector<std::int32_t> tokens;
  };

  void encode_part(std::string_view part, Encoding& encoding) const {
    std::string normal;
    for (const UnicodeForm form : rules_.normalizers) {
      normal = normalize(part, form);
      part = normal;
    }
    normalized_.split(part, [&](std::string_view piece, const AddedToken* token) {
      if (token != nullptr)
        encoding.tokens.push_back(token->id);
      else
        encode_piece(piece, 0, encoding);
    });
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
