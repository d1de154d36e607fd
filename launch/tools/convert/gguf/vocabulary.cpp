#include "launch/tools/convert/gguf/vocabulary.h"

#include <algorithm>
#include <set>

#include "framework/base/error.h"
#include "framework/data/files.h"
#include "framework/data/tokenizer_json/byte_alphabet.h"

namespace conclave::gguf {
namespace {

/// llama.cpp ends where two tokens have one text.
void name_unused_rows(std::int64_t rows, std::vector<Token>& tokens) {
  std::set<std::string> texts;
  for (const Token& token : tokens) texts.insert(token.text);
  for (auto id = static_cast<std::int64_t>(tokens.size()); id < rows; ++id) {
    std::string text = join_text("[PAD", id, "]");
    while (!texts.insert(text).second) text += "_";
    tokens.push_back({text, TokenType::unused, -1000});
  }
}

void check_texts(const std::string& name, const std::vector<Token>& tokens) {
  std::set<std::string> texts;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    check(first_invalid_utf8(tokens[id].text) == std::string_view::npos, Fault::request, name, ": the token ",
          id, " is not UTF-8, which GGUF cannot say; --tokenizer none exports without a tokenizer.");
    check(texts.insert(tokens[id].text).second, Fault::request, name, ": two tokens have the text ",
          tokens[id].text,
          ", and llama.cpp loads no such file; --tokenizer none exports without a tokenizer.");
  }
}

/// Padding that the tokenizer itself does not have is the row behind its tokens.
void add_padding(const TokenRoles& roles, std::vector<Token>& tokens) {
  if (roles.padding && static_cast<std::size_t>(roles.padding->id) == tokens.size())
    tokens.push_back({roles.padding->text, TokenType::control, -1000});
}

}  // namespace

Vocabulary vocabulary_of_bytes(const Tokenizer& tokenizer, std::int64_t rows) {
  check(rows > tokenizer.vocab_size(), Fault::request, "model.vocab_size is ", rows,
        ", and llama.cpp loads byte-level tokens only with a merge of two of them, whose result takes one "
        "more row; expected at least ",
        tokenizer.vocab_size() + 1, ". --tokenizer none exports without a tokenizer.");
  // The name of a rule without merges that counts: any would do that keeps all bytes and all spaces.
  Vocabulary vocabulary{.model = "gpt2", .pre_tokenizer = "qwen2"};
  for (int byte = 0; byte < 256; ++byte) vocabulary.tokens.push_back({character_of_byte(byte)});
  vocabulary.roles = roles_of_bytes(tokenizer, rows);
  vocabulary.tokens.push_back({vocabulary.roles.separator->text, TokenType::control});
  // No UTF-8 has the byte FF, so the merge is never made. Its result is the row that stands in no text.
  const std::string never = character_of_byte(0xFF);
  vocabulary.merges = {never + " " + never};
  vocabulary.tokens.push_back({never + never, TokenType::unused});
  return vocabulary;
}

Vocabulary vocabulary_of(const std::string& name, std::int64_t rows, const Say& say) {
  if (name.empty()) return {.model = "none"};
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(name);
  check(tokenizer->vocab_size() <= rows, Fault::request, "The tokenizer ", name, " has ",
        tokenizer->vocab_size(), " ids, but the model ", rows,
        "; give the one that it was trained with: --tokenizer PATH, or none.");
  if (name == "bytes") return completed(vocabulary_of_bytes(*tokenizer, rows), name, rows);
  if (name.ends_with(".json")) return completed(vocabulary_of_rules(name, say), name, rows);
  const MappedFile file(name, "tokenizer model");
  const SentencePieceModel model = parse_sentencepiece_model(file.bytes(), name);
  return completed(vocabulary_of_pieces(model, name, roles_of_pieces(model, *tokenizer, rows), say), name,
                   rows);
}

Vocabulary completed(Vocabulary vocabulary, const std::string& name, std::int64_t rows) {
  add_padding(vocabulary.roles, vocabulary.tokens);
  name_unused_rows(rows, vocabulary.tokens);
  check_texts(name, vocabulary.tokens);
  const auto& [separator, padding] = vocabulary.roles;
  if (separator) vocabulary.ids.opening = vocabulary.ids.ending = separator->id;
  if (padding) vocabulary.ids.padding = padding->id;
  return vocabulary;
}

void Vocabulary::write(KeyValues& keys) const {
  keys.add("tokenizer.ggml.model", model);
  if (!pre_tokenizer.empty()) keys.add("tokenizer.ggml.pre", pre_tokenizer);
  if (!tokens.empty()) {
    std::vector<std::string> texts;
    std::vector<float> scores;
    std::vector<std::int32_t> types;
    for (const Token& token : tokens) {
      texts.push_back(token.text);
      scores.push_back(token.score);
      types.push_back(static_cast<std::int32_t>(token.type));
    }
    keys.add("tokenizer.ggml.tokens", texts);
    if (model == "llama") keys.add("tokenizer.ggml.scores", scores);
    keys.add("tokenizer.ggml.token_type", types);
  }
  if (!merges.empty()) keys.add("tokenizer.ggml.merges", merges);
  const auto add_id = [&](const char* role, std::optional<std::int32_t> id) {
    if (id) keys.add(join_text("tokenizer.ggml.", role, "_token_id"), static_cast<std::uint32_t>(*id));
  };
  add_id("bos", ids.opening);
  add_id("eos", ids.ending);
  add_id("unknown", ids.unknown);
  add_id("padding", ids.padding);
  if (model == "llama") keys.add("tokenizer.ggml.add_space_prefix", adds_space_prefix);
}

}  // namespace conclave::gguf
