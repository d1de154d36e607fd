#include "launch/tools/convert/imported_tokenizer.h"

#include <memory>

#include "framework/base/error.h"
#include "framework/data/tokenizer.h"
#include "framework/store/lookup.h"
#include "launch/tools/convert/tokenizer_config.h"
#include "launch/tools/convert/tokenizer_files.h"
#include "launch/tools/convert/tokenizer_spellings.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

using Say = std::function<void(const std::string&)>;

/// The file by which a recipe names a tokenizer; empty where there is none.
std::string main_file(const fs::path& directory) {
  if (is_sentencepiece_model(directory / "tokenizer.model")) return "tokenizer.model";
  for (const char* name : {"tokenizer.json", "tokenizer.model", "vocab.json"})
    if (is_there(directory / name)) return name;
  return "";
}

/// Says which properties of a tokenizer that Conclave reads may surprise the one who trains with it.
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
  if (own == "bytes") {
    facts.templates = ChatTemplates::of(directory);
    return facts.tokenizer = "bytes";
  }
  check_tokenizer_spellings(directory, say);
  const std::string file = main_file(directory);
  if (file.empty()) {
    if (is_there(directory / "tiktoken.model"))
      say("Its tokenizer is tiktoken.model, for which there is no tokenizer.json beside it. Conclave does "
          "not read "
          "that file; a tokenizer.json that transformers makes of it can be put into the directory.");
    return "";
  }
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
