// A tokenizer.json of the byte-level BPE kind. llama.cpp joins pairs by their ranks as the library
// `tokenizers` does. It does not normalise text.
#include <algorithm>
#include <set>
#include <utility>

#include "framework/base/error.h"
#include "framework/data/files.h"
#include "framework/data/tokenizer_json/rules.h"
#include "launch/tools/convert/gguf/pre_tokenizer.h"
#include "launch/tools/convert/gguf/vocabulary.h"

namespace conclave::gguf {
namespace {

using Json = nlohmann::json;

void check_rules(const TokenizerRules& rules, const std::string& path, const Say& say) {
  check(!rules.characters, Fault::request, path,
        ": its tokens are of characters, which Conclave does not write for llama.cpp. A SentencePiece "
        "tokenizer.model of the same tokens is written; --tokenizer none exports without a tokenizer.");
  const auto is_composed = [](const NormalStep& step) {
    return step.kind == NormalStep::Kind::form && step.form == UnicodeForm::nfc;
  };
  check(
      std::all_of(rules.normalizers.begin(), rules.normalizers.end(), is_composed), Fault::request, path,
      ": its normalizer changes text, which llama.cpp does not do. The ids of a text would be others there; "
      "--tokenizer none exports without a tokenizer.");
  check(!rules.add_prefix_space, Fault::request, path,
        ": add_prefix_space puts a space in front of words, which llama.cpp does not do here. The ids of a "
        "text would be others there; --tokenizer none exports without a tokenizer.");
  if (!rules.normalizers.empty())
    say(path + ": llama.cpp does not bring text into Unicode's form NFC first, in which most text is.");
  for (const AddedToken& token : rules.added)
    if (token.left_strip || token.right_strip || token.single_word)
      say(join_text(path, ": the token ", token.content,
                    " takes white space beside it, or stands for whole words only, and neither is so in "
                    "llama.cpp."));
}

/// Of two equal pairs the last counts to the library, and the first to llama.cpp.
std::vector<std::string> merges_of(const BytePairRules& rules, const std::vector<Token>& tokens) {
  std::vector<std::string> merges;
  std::set<std::pair<std::int32_t, std::int32_t>> seen;
  const auto text_of = [&](std::int32_t id) { return tokens[static_cast<std::size_t>(id)].text; };
  for (std::size_t i = rules.merges.size(); i-- > 0;) {
    const BytePairRules::Merge& merge = rules.merges[i];
    if (seen.emplace(merge.left, merge.right).second)
      merges.push_back(text_of(merge.left) + " " + text_of(merge.right));
  }
  std::reverse(merges.begin(), merges.end());
  return merges;
}

}  // namespace

Vocabulary vocabulary_of_rules(const std::string& path, const Say& say) {
  const TokenizerRules rules = read_tokenizer_rules(path);
  const MappedFile file(path, "tokenizer");
  const Json json = Json::parse(file.bytes());  // as the rules, which were read from it
  check_rules(rules, path, say);
  Vocabulary vocabulary{.model = "gpt2", .pre_tokenizer = pre_tokenizer_named(json, path, say)};
  std::vector<Token>& tokens = vocabulary.tokens;
  tokens.resize(rules.texts.size());
  for (const auto& [text, id] : json.at("model").at("vocab").items()) tokens[id.get<std::size_t>()] = {text};
  vocabulary.merges = merges_of(rules.byte_pairs, tokens);
  check(!vocabulary.merges.empty(), Fault::request, path,
        ": it has no merges, without which llama.cpp loads no file.");
  if (const auto added = json.find("added_tokens"); added != json.end() && added->is_array())
    for (const Json& token : *added)
      tokens[token.at("id").get<std::size_t>()] = {
          token.at("content").get<std::string>(),
          token.value("special", false) ? TokenType::control : TokenType::user_defined};
  for (std::size_t id = 0; id < tokens.size(); ++id)  // ids that the file leaves out
    if (tokens[id].text.empty()) tokens[id] = {join_text("[PAD", id, "]"), TokenType::unused};
  vocabulary.roles = roles_of_rules(rules, path);
  return vocabulary;
}

}  // namespace conclave::gguf
