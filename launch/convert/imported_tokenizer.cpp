#include "launch/convert/imported_tokenizer.h"

#include <map>
#include <memory>

#include "framework/base/error.h"
#include "framework/data/files.h"
#include "framework/data/sentencepiece_model.h"
#include "framework/data/tokenizer.h"
#include "framework/store/lookup.h"
#include "launch/convert/json_file.h"
#include "launch/convert/tokenizer_config.h"
#include "launch/convert/tokenizer_files.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

using Json = nlohmann::json;
using Say = std::function<void(const std::string&)>;

/// Texts by id, and which of them are added and special.
struct Vocabulary {
  std::map<std::int64_t, std::string> texts;
  std::map<std::int64_t, bool> is_special;  // of the added ones
};

Vocabulary vocabulary_of(const fs::path& file) {
  const Json json = read_json_object(file);
  Vocabulary vocabulary;
  try {
    const Json& words = json.at("model").at("vocab");
    if (words.is_object())
      for (const auto& [text, id] : words.items()) vocabulary.texts[id.get<std::int64_t>()] = text;
    else
      for (const Json& word : words)
        vocabulary.texts.emplace(static_cast<std::int64_t>(vocabulary.texts.size()),
                                 word.at(0).get<std::string>());
    for (const Json& token : json.value("added_tokens", Json::array())) {
      const auto id = token.at("id").get<std::int64_t>();
      vocabulary.texts[id] = token.at("content").get<std::string>();
      vocabulary.is_special[id] = token.value("special", false);
    }
  } catch (const Json::exception& error) {
    fail(Fault::data, file.string(),
         " is no tokenizer.json that can be compared with the tokenizer.model "
         "beside it: ",
         error.what(), ".");
  }
  return vocabulary;
}

/// A tokenizer.model and a tokenizer.json in one directory are two spellings of one tokenizer. Readers differ
/// in which they take, so both must give each id the same text.
void check_same_vocabulary(const fs::path& model_file, const fs::path& json_file) {
  const char* remedy = "Take the file out that is not the model's.";
  const SentencePieceModel model = parse_sentencepiece_model(
      MappedFile(model_file.string(), "tokenizer model").bytes(), model_file.string());
  const Vocabulary vocabulary = vocabulary_of(json_file);
  const auto pieces = static_cast<std::int64_t>(model.pieces.size());
  for (std::int64_t id = 0; id < pieces; ++id) {
    const SentencePieceModel::Piece& piece = model.pieces[static_cast<std::size_t>(id)];
    const auto found = vocabulary.texts.find(id);
    const bool is_same = found != vocabulary.texts.end() && found->second == piece.text;
    check(is_same || piece.kind == SentencePieceModel::Kind::unused, Fault::data, json_file.string(),
          ": token ", id, " is ", found == vocabulary.texts.end() ? "not there" : "'" + found->second + "'",
          ", but in tokenizer.model '", piece.text, "'. ", remedy);
  }
  for (auto extra = vocabulary.texts.lower_bound(pieces); extra != vocabulary.texts.end(); ++extra) {
    const auto special = vocabulary.is_special.find(extra->first);
    check(special != vocabulary.is_special.end() && special->second, Fault::data, json_file.string(),
          ": token ", extra->first, ", '", extra->second, "', stands for text, but tokenizer.model has ",
          pieces, " tokens alone. ", remedy);
  }
}

/// The end of a text may be named in two files; the one between documents depends on it.
void check_same_end(const fs::path& directory) {
  const fs::path config = directory / "tokenizer_config.json", map = directory / "special_tokens_map.json";
  if (!is_there(config) || !is_there(map)) return;
  const std::string one = special_token(read_json_object(config), "eos_token", config),
                    other = special_token(read_json_object(map), "eos_token", map);
  check(one.empty() || other.empty() || one == other, Fault::data, config.string(), ": eos_token is ", one,
        ", but in special_tokens_map.json ", other,
        ", and both tell the same thing; take the one out that is "
        "wrong.");
}

/// What is true of a tokenizer that Conclave reads and may surprise who trains with it.
void say_what_differs(const Tokenizer& tokenizer, std::int64_t vocab_size, const SourceFacts& facts,
                      const Say& say) {
  if (tokenizer.vocab_size() > vocab_size)
    say(join_text("Its tokenizer has ", tokenizer.vocab_size(), " ids, but vocab_size is ", vocab_size,
                  "; text with tokens beyond cannot be trained on."));
  if (!facts.may_end_with(tokenizer.end_of_document()))
    say(join_text(
        "Its tokenizer ends a text with token ", tokenizer.end_of_document(),
        ", which `conclave tokenize` puts between documents; the eos_token_id of its config.json is "
        "another."));
}

}  // namespace

std::string import_tokenizer(const fs::path& directory, const fs::path& run, std::int64_t vocab_size,
                             SourceFacts& facts, const Say& say) {
  const fs::path config = directory / "tokenizer_config.json";
  const std::string own =
      is_there(config) ? ConfigReader(config).text_or(own_tokenizer_key, "") : std::string();
  facts.is_own_tokenizer = own == "bytes" || own == "sentencepiece";
  if (own == "bytes") return facts.tokenizer = "bytes";
  check_same_end(directory);
  std::string file;
  for (const char* name : {"vocab.json", "tokenizer.json", "tokenizer.model"})
    if (is_there(directory / name)) file = name;
  if (file.empty()) return "";
  if (file == "tokenizer.model" && is_there(directory / "tokenizer.json"))
    check_same_vocabulary(directory / file, directory / "tokenizer.json");
  try {
    say_what_differs(*load_tokenizer((directory / file).string()), vocab_size, facts, say);
  } catch (const Error& error) {
    say(join_text(error.what(),
                  " Conclave does not read this tokenizer; the recipe names it, export hands it "
                  "on, and token files made elsewhere with it can be trained on."));
  }
  copy_tokenizer_files(directory, run);
  const std::string copy = (run / file).string();
  facts.tokenizer = tokenizer_fingerprint(copy);
  return copy;
}

}  // namespace conclave
