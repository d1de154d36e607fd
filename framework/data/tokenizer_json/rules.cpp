// From JSON to TokenizerRules, a function for each field. The meaning is that of the library `tokenizers`,
// version 0.23.
#include "framework/data/tokenizer_json/rules.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "framework/base/error.h"
#include "framework/data/files.h"
#include "framework/data/tokenizer_json/byte_alphabet.h"
#include "framework/data/tokenizer_json/pattern_syntax.h"

namespace conclave {
namespace {

using Json = nlohmann::json;

/// The table of the pre-tokenizer ByteLevel (GPT-2's encoder.py).
constexpr const char* gpt2_words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// The names of the token between documents in the base models that people use.
constexpr const char* ends_of_document[] = {"<|endoftext|>",         "<|end_of_text|>", "</s>", "<eos>",
                                            "<｜end▁of▁sentence｜>", "<|eos|>",         "[EOS]"};

/// For sentences; a structure may be nested too deep to be written.
std::string shown(const Json& value) {
  return value.is_structured() ? std::string("an ") + value.type_name() : value.dump();
}

class RulesReader {
 public:
  RulesReader(const std::string& path, const Json& file) : path_(path), file_(file) {
    check(file.is_object() && file.contains("model"), Fault::data, "tokenizer ", path,
          " is no tokenizer.json: an object with the field model is expected");
  }

  TokenizerRules run() {
    const Json& decoder = field(file_, "decoder");
    if (flag(file_.at("model"), "byte_fallback", false)) rules_.characters = character_decoder(decoder);
    read_normalizer(field(file_, "normalizer"), "normalizer", 0);
    read_model(file_.at("model"));
    read_added_tokens(field(file_, "added_tokens"));
    if (rules_.characters)
      read_steps_to_characters();
    else
      read_pre_tokenizer();
    expect(
        rules_.characters || type_of(decoder) == "ByteLevel", "decoder",
        decoder.is_null() ? "null" : type_of(decoder),
        "ByteLevel, or with model.byte_fallback Metaspace or a Sequence of Replace, ByteFallback, Fuse and "
        "Strip");
    read_texts();
    read_end_of_document();
    return std::move(rules_);
  }

 private:
  static const Json& field(const Json& object, const char* name) {
    static const Json none;
    const auto found = object.find(name);
    return found == object.end() ? none : *found;
  }

  static std::string type_of(const Json& object) {
    return object.is_object() ? object.value("type", "") : "";
  }

  static bool flag(const Json& object, const char* name, bool otherwise) {
    const Json& value = field(object, name);
    return value.is_null() ? otherwise : value.get<bool>();
  }

  void expect(bool holds, const std::string& name, const std::string& came, const std::string& wanted) const {
    check(holds, Fault::data, "tokenizer ", path_, ": ", name, " is ", came.empty() ? "\"\"" : came,
          ", which Conclave does not do; expected ", wanted);
  }

  std::string place(const std::string& name) const { return join_text("tokenizer ", path_, ": ", name); }

  void read_normalizer(const Json& normalizer, const std::string& name, int depth) {
    if (normalizer.is_null()) return;
    const std::string type = type_of(normalizer);
    if (type == "Sequence") {
      expect(depth < 8, name, "nested too deep", "at most 8 levels");
      for (const Json& inner : normalizer.at("normalizers"))
        read_normalizer(inner, name + ".normalizers", depth + 1);
      return;
    }
    const std::optional<NormalStep> step = normal_step(normalizer);
    expect(step.has_value(), name, type,
           "null, NFC, NFD, NFKC, NFKD, Prepend, Replace of a String or a Sequence of them");
    rules_.normalizers.push_back(*step);
  }

  void read_model(const Json& model) {
    // Files from before the field was written have none.
    expect(model.value("type", "BPE") == "BPE", "model.type", type_of(model), "BPE");
    const Json& dropout = field(model, "dropout");
    expect(dropout.is_null() || dropout == 0, "model.dropout", shown(dropout), "null");
    for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const Json& value = field(model, name);
      expect(value.is_null() || value == "", join_text("model.", name), shown(value), "null");
    }
    expect(rules_.characters || !flag(model, "byte_fallback", false), "model.byte_fallback", "true",
           "false where the decoder is ByteLevel, whose vocabulary has every byte as a token");
    rules_.byte_pairs.whole_words_first = flag(model, "ignore_merges", false);
    read_vocabulary(model.at("vocab"));
    read_merges(model.at("merges"));
  }

  void read_vocabulary(const Json& vocabulary) {
    check(vocabulary.is_object(), Fault::data, place("model.vocab"), " is no object of tokens and ids");
    for (const auto& [token, value] : vocabulary.items()) {
      const bool whole = value.is_number_unsigned();
      const std::uint64_t id = whole ? value.get<std::uint64_t>() : 0;
      check(whole && id <= 4 * vocabulary.size() + 65536, Fault::data, place("model.vocab"), ": ", token,
            " has the id ", shown(value), "; whole numbers without large gaps are expected");
      add_id(token, static_cast<std::int32_t>(id));
      auto bytes = rules_.characters ? std::optional(token) : bytes_of_characters(token);
      if (bytes) rules_.byte_pairs.ids.emplace(std::move(*bytes), static_cast<std::int32_t>(id));
    }
    if (rules_.characters) return read_fallback();
    for (int byte = 0; byte < 256; ++byte) {
      const bool never_in_utf8 = byte == 0xC0 || byte == 0xC1 || byte >= 0xF5;
      check(never_in_utf8 || rules_.byte_pairs.ids.contains(std::string(1, static_cast<char>(byte))),
            Fault::data, place("model.vocab"), " has no token for the byte ", byte,
            "; a byte-level vocabulary, in which no text is lost, is expected");
    }
  }

  /// A character without a token is spelled in these, so no text is lost and <unk> never comes.
  void read_fallback() {
    for (int byte = 0; byte < 256; ++byte) {
      const std::string name = name_of_byte(byte);
      const auto found = ids_.find(name);
      check(found != ids_.end(), Fault::data, place("model.vocab"), " has no token ", name,
            ", but model.byte_fallback is true; a vocabulary in which no text is lost is expected");
      rules_.byte_pairs.fallback.push_back(found->second);
      bytes_.emplace(found->second, static_cast<char>(byte));
    }
  }

  static std::string name_of_byte(int byte) {
    constexpr const char* digits = "0123456789ABCDEF";
    return std::string("<0x") + digits[byte >> 4] + digits[byte & 15] + ">";
  }

  void add_id(const std::string& token, std::int32_t id) {
    ids_.emplace(token, id);
    const auto [taken, is_new] = tokens_.emplace(id, token);
    check(is_new, Fault::data, "tokenizer ", path_, ": ", taken->second, " and ", token, " both have the id ",
          id);
  }

  std::int32_t id_of(const std::string& token, std::size_t merge) const {
    const auto found = ids_.find(token);
    check(found != ids_.end(), Fault::data, "tokenizer ", path_, ": model.merges[", merge, "] speaks of '",
          token, "', which is not in model.vocab");
    return found->second;
  }

  void read_merges(const Json& merges) {
    check(merges.is_array(), Fault::data, place("model.merges"), " is no array");
    for (std::size_t i = 0; i < merges.size(); ++i) {
      std::string left, right;
      if (merges[i].is_string()) {
        const auto& both = merges[i].get_ref<const std::string&>();
        if (both.starts_with("#version")) continue;
        const std::size_t space = both.find(' ');
        if (space != std::string::npos && both.find(' ', space + 1) == std::string::npos) {
          left = both.substr(0, space);
          right = both.substr(space + 1);
        }
      } else if (merges[i].is_array() && merges[i].size() == 2) {
        left = merges[i][0].get<std::string>();
        right = merges[i][1].get<std::string>();
      }
      check(!left.empty() && !right.empty(), Fault::data, "tokenizer ", path_, ": model.merges[", i, "] is ",
            shown(merges[i]), "; \"a b\" or [\"a\", \"b\"] is expected");
      rules_.byte_pairs.merges.push_back({id_of(left, i), id_of(right, i), id_of(left + right, i)});
    }
  }

  /// The library counts tokens that the vocabulary does not have through from the vocabulary's size, whatever
  /// ids the file gives them; a file that says otherwise would mean two things.
  void read_added_tokens(const Json& tokens) {
    if (tokens.is_null()) return;
    check(tokens.is_array(), Fault::data, place("added_tokens"), " is no array");
    std::vector<AddedToken> ordinary;
    std::size_t next = ids_.size();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const Json& json = tokens[i];
      const Json& id = json.at("id");
      AddedToken token{.content = json.at("content").get<std::string>(),
                       .special = flag(json, "special", false),
                       .single_word = flag(json, "single_word", false),
                       .left_strip = flag(json, "lstrip", false),
                       .right_strip = flag(json, "rstrip", false),
                       .normalized = flag(json, "normalized", !flag(json, "special", false))};
      const std::string name = join_text("added_tokens[", i, "]");
      check(!token.content.empty(), Fault::data, place(name), " has no content; some text is expected");
      const auto known = ids_.find(token.content);
      const bool is_new = known == ids_.end();
      const auto wanted = is_new ? next++ : static_cast<std::size_t>(known->second);
      check(id.is_number_unsigned() && id.get<std::uint64_t>() == wanted, Fault::data, place(name), ", ",
            token.content, ", has the id ", shown(id), "; expected is ", wanted,
            is_new ? ", the next one after the vocabulary" : ", as in model.vocab");
      token.id = static_cast<std::int32_t>(wanted);
      if (is_new) add_id(token.content, token.id);
      // A token that is not normalized is looked for in the text as it came.
      std::string normal = token.normalized ? normalize(token.content, rules_.normalizers) : token.content;
      const bool is_first = contents_.emplace(token.id, token.content).second;
      check(is_first && !normal.empty(), Fault::data, place(name), ", ", token.content, ", ",
            is_first ? "is nothing once it is normalized" : "is there twice",
            "; expected one with some text");
      if (token.special) special_.insert(token.id);
      if (rules_.characters) contents_[token.id] = normal;  // as the library decodes it
      token.content = std::move(normal);
      (token.special ? rules_.added : ordinary).push_back(std::move(token));
    }
    rules_.added.insert(rules_.added.end(), ordinary.begin(), ordinary.end());
  }

  void read_pre_tokenizer() {
    const Json& pre_tokenizer = field(file_, "pre_tokenizer");
    std::vector<const Json*> steps;
    collect(pre_tokenizer, "pre_tokenizer", steps, 0);
    expect(!steps.empty() && type_of(*steps.back()) == "ByteLevel", "pre_tokenizer",
           steps.empty() ? "null" : "one that ends with " + type_of(*steps.back()),
           "ByteLevel, or a Sequence that ends with it");
    for (std::size_t i = 0; i + 1 < steps.size(); ++i)
      rules_.splits.push_back(split_of(*steps[i], join_text("pre_tokenizer step ", i + 1)));
    const Json& bytes = *steps.back();
    rules_.add_prefix_space = bytes.at("add_prefix_space").get<bool>();
    if (flag(bytes, "use_regex", true))
      rules_.words.emplace(WordPattern::Options{.pattern = pcre2_pattern(gpt2_words, place("pre_tokenizer"))},
                           place("pre_tokenizer"));
  }

  void read_steps_to_characters() {
    const Json& step = field(file_, "pre_tokenizer");
    if (step.is_null()) return;
    rules_.metaspace = metaspace(step);
    expect(rules_.metaspace || type_of(step) == "Split", "pre_tokenizer", type_of(step),
           "null, Metaspace or Split for a vocabulary of characters");
    if (!rules_.metaspace) rules_.splits.push_back(split_of(step, "pre_tokenizer"));
  }

  void collect(const Json& step, const std::string& name, std::vector<const Json*>& steps, int depth) const {
    if (type_of(step) == "Sequence") {
      expect(depth < 8, name, "nested too deep", "at most 8 levels");
      for (const Json& inner : step.at("pretokenizers"))
        collect(inner, name + ".pretokenizers", steps, depth + 1);
    } else if (!step.is_null()) {
      steps.push_back(&step);
    }
  }

  WordPattern split_of(const Json& step, const std::string& name) const {
    using Behavior = WordPattern::Behavior;
    const std::string type = type_of(step), where = place(name);
    if (type == "Digits")
      return {
          {.pattern = pcre2_pattern(R"(\p{N})", where),
           .behavior = flag(step, "individual_digits", false) ? Behavior::isolated : Behavior::contiguous},
          where};
    expect(type == "Split", name, type,
           "Split or Digits, which Conclave does before ByteLevel, the last of a Sequence");
    const std::pair<const char*, Behavior> behaviors[] = {
        {"Removed", Behavior::removed},
        {"Isolated", Behavior::isolated},
        {"MergedWithPrevious", Behavior::merged_with_previous},
        {"MergedWithNext", Behavior::merged_with_next},
        {"Contiguous", Behavior::contiguous}};
    const std::string behavior = step.at("behavior").get<std::string>();
    const auto* found = std::find_if(std::begin(behaviors), std::end(behaviors),
                                     [&](const auto& known) { return known.first == behavior; });
    expect(found != std::end(behaviors), name + ".behavior", behavior,
           "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
    const Json& pattern = step.at("pattern");
    const bool literal = pattern.contains("String");
    const std::string text = pattern.at(literal ? "String" : "Regex").get<std::string>();
    return {{.pattern = literal ? pcre2_literal(text) : pcre2_pattern(text, where),
             .behavior = found->second,
             .invert = flag(step, "invert", false)},
            where};
  }

  /// Added tokens stand for their content; special ones, and what is no token, for nothing. A token of the
  /// vocabulary that is not all bytes stands for its own name, as in the library.
  void read_texts() {
    rules_.texts.resize(static_cast<std::size_t>(tokens_.rbegin()->first) + 1);
    for (const auto& [id, token] : tokens_) {
      std::string& text = rules_.texts[static_cast<std::size_t>(id)];
      const auto content = contents_.find(id);
      if (special_.contains(id)) continue;
      if (const auto byte = bytes_.find(id); byte != bytes_.end())
        text = byte->second;
      else if (rules_.characters)
        text = replaced(content != contents_.end() ? content->second : token, rules_.characters->mark, " ");
      else
        text = content != contents_.end() ? content->second : bytes_of_characters(token).value_or(token);
    }
  }

  void read_end_of_document() {
    const std::string configured = configured_end_of_document(path_);
    std::string known;
    if (!configured.empty()) {
      check(ids_.contains(configured), Fault::data, "tokenizer ", path_, " has no token ", configured,
            ", which the tokenizer_config.json beside it names as eos_token");
      known = configured;
    } else {
      std::string found;
      int count = 0;
      for (const char* name : ends_of_document)
        if (const auto id = ids_.find(name); id != ids_.end() && contents_.contains(id->second)) {
          known = name;
          found += (count++ > 0 ? " and " : "") + known;
        }
      check(count == 1, Fault::data, "tokenizer ", path_, " has ",
            count == 0 ? "no added token that is known to end a document" : found,
            "; name the one that Conclave shall put after each document as eos_token in a "
            "tokenizer_config.json beside it: {\"eos_token\": \"...\"}");
    }
    rules_.end_of_document = ids_.at(known);
    rules_.end_of_document_text = known;
    rules_.texts[static_cast<std::size_t>(rules_.end_of_document)].clear();
  }

  const std::string& path_;
  const Json& file_;
  TokenizerRules rules_;
  std::unordered_map<std::string, std::int32_t> ids_;
  std::map<std::int32_t, std::string> tokens_, contents_;  // contents_: of added tokens
  std::set<std::int32_t> special_;
  std::map<std::int32_t, char> bytes_;  // of tokens that stand for one, beside characters
};

Json parsed(const std::string& path) {
  const MappedFile file(path, "tokenizer");
  try {
    return Json::parse(file.bytes());
  } catch (const Json::exception& error) {
    fail(Fault::data, "tokenizer ", path, " is not JSON (", error.what(), ")");
  }
}

}  // namespace

TokenizerRules read_tokenizer_rules(const std::string& path) {
  const Json file = parsed(path);
  try {
    return RulesReader(path, file).run();
  } catch (const Json::exception& error) {
    fail(Fault::data, "tokenizer ", path, " is no tokenizer.json of a BPE kind (", error.what(), ")");
  }
}

std::string configured_end_of_document(const std::string& path) {
  const auto config = std::filesystem::path(path).parent_path() / "tokenizer_config.json";
  std::error_code code;
  if (!std::filesystem::exists(config, code)) return "";
  const Json file = parsed(config.string());
  const auto found = file.is_object() ? file.find("eos_token") : file.end();
  if (found == file.end() || found->is_null()) return "";
  const Json& content = found->is_object() && found->contains("content") ? found->at("content") : *found;
  check(content.is_string(), Fault::data, config.string(), ": eos_token is ", shown(content),
        ", expected a text");
  return content.get<std::string>();
}

}  // namespace conclave
