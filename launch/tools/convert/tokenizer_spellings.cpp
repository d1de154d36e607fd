#include "launch/tools/convert/tokenizer_spellings.h"

#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "framework/base/error.h"
#include "framework/data/files.h"
#include "framework/data/sentencepiece_model.h"
#include "framework/store/lookup.h"
#include "launch/tools/convert/json_file.h"
#include "launch/tools/convert/tokenizer_config.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

using Json = nlohmann::json;
using Say = std::function<void(const std::string&)>;

constexpr const char* remedy = "Both tell the same thing; take the one out that is wrong.";

struct Token {
  std::string text;
  bool is_special = false;  // known to stand in no text
  bool is_needed = true;    // false: a hole in the vocabulary, whose name no reader asks for
};

/// One file's answer to which token has which id.
struct Vocabulary {
  fs::path file;
  std::map<std::int64_t, Token> tokens;
};

/// Runs what reads a file's JSON; a field that is not what it should be is a sentence.
template <class Read>
Vocabulary read_vocabulary(const fs::path& file, const Read& read) {
  Vocabulary vocabulary{.file = file, .tokens = {}};
  try {
    read(read_json_object(file), vocabulary.tokens);
  } catch (const Json::exception& error) {
    fail(Fault::data, file.string(), ": its tokens are not what a tokenizer's file has: ", error.what(), ".");
  }
  return vocabulary;
}

/// All tokens of a tokenizer.json. Pieces of a vocabulary that no list names as added stand for text.
Vocabulary of_tokenizer_json(const fs::path& file) {
  return read_vocabulary(file, [](const Json& json, std::map<std::int64_t, Token>& tokens) {
    const Json& words = json.at("model").at("vocab");
    if (words.is_object())
      for (const auto& [text, id] : words.items()) tokens[id.get<std::int64_t>()].text = text;
    else
      for (const Json& word : words)
        tokens.emplace(static_cast<std::int64_t>(tokens.size()), Token{word.at(0).get<std::string>()});
    for (const Json& token : json.value("added_tokens", Json::array()))
      tokens[token.at("id").get<std::int64_t>()] = {token.at("content").get<std::string>(),
                                                    token.value("special", false)};
  });
}

Vocabulary of_tokenizer_model(const fs::path& file) {
  using Kind = SentencePieceModel::Kind;
  const SentencePieceModel model =
      parse_sentencepiece_model(MappedFile(file.string(), "tokenizer model").bytes(), file.string());
  Vocabulary vocabulary{.file = file, .tokens = {}};
  for (const SentencePieceModel::Piece& piece : model.pieces)
    vocabulary.tokens.emplace(static_cast<std::int64_t>(vocabulary.tokens.size()),
                              Token{piece.text, piece.kind == Kind::control, piece.kind != Kind::unused});
  return vocabulary;
}

/// added_tokens_decoder of a tokenizer_config.json: {"5": {"content": ..., "special": ...}}.
Vocabulary of_tokenizer_config(const fs::path& file) {
  return read_vocabulary(file, [&](const Json& json, std::map<std::int64_t, Token>& tokens) {
    const Json decoder = json.value("added_tokens_decoder", Json::object());
    for (const auto& [key, token] : decoder.items()) {
      std::int64_t id = -1;
      const auto [end, code] = std::from_chars(key.data(), key.data() + key.size(), id);
      check(code == std::errc() && end == key.data() + key.size(), Fault::data, file.string(),
            ": added_tokens_decoder has the key ", key, ", expected the id of a token.");
      tokens[id] = {token.at("content").get<std::string>(), token.value("special", false)};
    }
  });
}

/// added_tokens.json: {"<|im_end|>": 5}, which does not say what is special.
Vocabulary of_added_tokens(const fs::path& file) {
  return read_vocabulary(file, [](const Json& json, std::map<std::int64_t, Token>& tokens) {
    for (const auto& [text, id] : json.items()) tokens[id.get<std::int64_t>()] = {text, true};
  });
}

/// Each token of `other` is in `read`, which Conclave follows, with the same text; a special one may be more.
void check_same(const Vocabulary& read, const Vocabulary& other, const Say& say) {
  std::int64_t more = 0;
  for (const auto& [id, token] : other.tokens) {
    const auto found = read.tokens.find(id);
    if (found == read.tokens.end() && (token.is_special || !token.is_needed)) {
      more += token.is_special;
      continue;
    }
    check(found != read.tokens.end(), Fault::data, other.file.string(), ": token ", id, ", '", token.text,
          "', stands for text and is not in ", read.file.filename().string(), ". ", remedy);
    check(found->second.text == token.text || !found->second.is_needed || !token.is_needed, Fault::data,
          other.file.string(), ": token ", id, " is '", token.text, "', but in ",
          read.file.filename().string(), " '", found->second.text, "'. ", remedy);
  }
  if (more > 0)
    say(join_text(other.file.string(), " has ", more, more == 1 ? " special token" : " special tokens",
                  " that ", read.file.filename().string(), " does not have; Conclave reads the latter."));
}

/// The separator of documents depends on the end of a text.
void check_same_end(const fs::path& directory) {
  const fs::path config = directory / "tokenizer_config.json", map = directory / "special_tokens_map.json";
  if (!is_there(config) || !is_there(map)) return;
  const std::string one = special_token(read_json_object(config), "eos_token", config),
                    other = special_token(read_json_object(map), "eos_token", map);
  check(one.empty() || other.empty() || one == other, Fault::data, config.string(), ": eos_token is ", one,
        ", but in special_tokens_map.json ", other, ". ", remedy);
}

}  // namespace

bool is_sentencepiece_model(const fs::path& file) {
  if (!is_there(file)) return false;
  try {
    parse_sentencepiece_model(MappedFile(file.string(), "tokenizer model").bytes(), file.string());
    return true;
  } catch (const Error&) {
    return false;
  }
}

void check_tokenizer_spellings(const fs::path& directory, const Say& say) {
  check_same_end(directory);
  const fs::path model = directory / "tokenizer.model", json = directory / "tokenizer.json",
                 config = directory / "tokenizer_config.json", added = directory / "added_tokens.json";
  std::vector<Vocabulary> others;
  if (is_there(config)) others.push_back(of_tokenizer_config(config));
  if (is_there(added)) others.push_back(of_added_tokens(added));
  if (is_sentencepiece_model(model)) {
    const Vocabulary pieces = of_tokenizer_model(model);
    if (is_there(json)) {
      const Vocabulary tokens = of_tokenizer_json(json);
      check_same(pieces, tokens, say);
      check_same(tokens, pieces, say);  // which has no piece that the other lacks
    }
    for (const Vocabulary& other : others) check_same(pieces, other, say);
  } else if (is_there(json)) {
    std::erase_if(others, [](const Vocabulary& other) { return other.tokens.empty(); });
    if (others.empty()) return;
    const Vocabulary tokens = of_tokenizer_json(json);
    for (const Vocabulary& other : others) check_same(tokens, other, say);
  }
}

}  // namespace conclave
