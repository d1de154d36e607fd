// The byte tokenizer, UTF-8 checking, and the choice of tokenizer by name.
#include "framework/data/tokenizer.h"

#include <filesystem>
#include <system_error>

#include "framework/base/error.h"
#include "framework/data/files.h"
#include "framework/data/sentencepiece.h"
#include "framework/data/tokenizer_json/load.h"
#include "framework/data/tokenizer_json/rules.h"

namespace conclave {
namespace {

class ByteTokenizer final : public Tokenizer {
 public:
  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> tokens(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) tokens[i] = static_cast<unsigned char>(text[i]);
    return tokens;
  }
  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string text;
    text.reserve(tokens.size());
    for (const std::int32_t token : tokens)
      if (token >= 0 && token < 256) text.push_back(static_cast<char>(token));
    return text;
  }
  std::int64_t vocab_size() const override { return 257; }
  std::int32_t end_of_document() const override { return 256; }
};

/// Length of the valid UTF-8 character at the front of non-empty text, 0 when there is none (RFC 3629,
/// section 4).
std::size_t character_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto between = [&](std::size_t i, int low, int high) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const int first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return between(1, 0x80, 0xBF) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const int low = first == 0xE0 ? 0xA0 : 0x80, high = first == 0xED ? 0x9F : 0xBF;
    return between(1, low, high) && between(2, 0x80, 0xBF) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const int low = first == 0xF0 ? 0x90 : 0x80, high = first == 0xF4 ? 0x8F : 0xBF;
    return between(1, low, high) && between(2, 0x80, 0xBF) && between(3, 0x80, 0xBF) ? 4 : 0;
  }
  return 0;
}

void check_tokenizer_is_there(const std::string& name) {
  std::error_code code;
  check(std::filesystem::exists(name, code), Fault::data, "tokenizer ", name,
        " cannot be opened: there is no such file here; expected bytes, the path of a Hugging Face "
        "tokenizer.json, or of a SentencePiece .model");
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& name) {
  if (name == "bytes") return std::make_unique<ByteTokenizer>();
  check_tokenizer_is_there(name);
  if (name.ends_with(".json")) return load_tokenizer_json(name);
  return load_sentencepiece(name);
}

std::string tokenizer_fingerprint(const std::string& name) {
  if (name == "bytes") return "bytes";
  check_tokenizer_is_there(name);
  const MappedFile model(name, "tokenizer model");
  std::uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a
  const auto take = [&](std::string_view bytes) {
    for (const char letter : bytes) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3ull;
  };
  take(model.bytes());
  if (name.ends_with(".json")) take(configured_end_of_document(name));
  return join_text("fnv1a-", std::hex, hash);
}

std::size_t first_invalid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t length = character_length(text.substr(at));
    if (length == 0) return at;
    at += length;
  }
  return std::string_view::npos;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string valid;
  while (true) {
    const std::size_t bad = first_invalid_utf8(text);
    valid += text.substr(0, bad);
    if (bad == std::string_view::npos) return valid;
    valid += "\xEF\xBF\xBD";
    text.remove_prefix(bad + 1);
  }
}

}  // namespace conclave
