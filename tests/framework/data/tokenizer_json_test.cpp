// tokenizer.json: the ids of the library `tokenizers` on a text of many scripts, kept in tokenizers/ (see
// tests/interop/tokenizer_json.py), and refusals of everything that would give other ids.
#include "framework/data/tokenizer_json/load.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "framework/data/text_stream.h"
#include "framework/data/tokenizer_json/pattern_syntax.h"
#include "framework/data/tokenizer_json/word_pattern.h"
#include "tests/framework/data/files_for_tests.h"

namespace conclave {
namespace {

using Json = nlohmann::ordered_json;

const std::string kept = CONCLAVE_TOKENIZERS;

const Json& base() {
  static const Json file = Json::parse(read_file(kept + "/base.json"));
  return file;
}

const Json& expected() {
  static const Json file = Json::parse(read_file(kept + "/expected.json"));
  return file;
}

std::string torture() {
  return read_file(kept + "/torture.txt");
}

/// The base with some fields changed, as RFC 7396 says: an object changes an object, null takes away.
std::unique_ptr<Tokenizer> changed(const TemporaryFolder& folder, const Json& patch) {
  Json file = base();
  file.merge_patch(patch);
  write_file(folder / "tokenizer.json", file.dump());
  return load_tokenizer(folder / "tokenizer.json");
}

Json added_token(int id, const std::string& content, const Json& more = Json::object()) {
  Json token = {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", false}};
  token.update(more);
  return token;
}

Json split_step(const std::string& pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
}

Json sequence(const Json& step) {
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  return {{"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", Json::array({step, bytes})}}}};
}

TEST(TokenizerJson, GivesTheIdsOfTheReference) {
  const TemporaryFolder folder;
  std::size_t texts = 0;
  for (const Json& tested : expected().at("cases")) {
    const auto tokenizer = changed(folder, tested.at("patch"));
    for (std::size_t i = 0; i < tested.at("texts").size(); ++i, ++texts) {
      const Json& text = tested["texts"][i];
      std::string ids;
      for (const std::int32_t token : tokenizer->encode(text.is_null() ? torture() : text.get<std::string>()))
        ids += (ids.empty() ? "" : " ") + std::to_string(token);
      EXPECT_EQ(ids, tested.at("ids").at(i).get<std::string>()) << tested.at("name") << ": " << text;
    }
  }
  EXPECT_GT(texts, 50u);
}

// Vocabularies of characters, as Llama 2, Mixtral and Gemma have them.
TEST(TokenizerJson, GivesTheIdsAndTextsOfTheReferenceForCharacters) {
  const TemporaryFolder folder;
  const Json whole = Json::parse(read_file(kept + "/characters.json")),
             answers = Json::parse(read_file(kept + "/characters_expected.json"));
  for (const Json& tested : answers.at("cases")) {
    Json file = whole;
    file.merge_patch(tested.at("patch"));
    write_file(folder / "tokenizer.json", file.dump());
    const auto tokenizer = load_tokenizer(folder / "tokenizer.json");
    for (std::size_t i = 0; i < answers.at("texts").size(); ++i) {
      const Json& text = answers["texts"][i];
      const auto tokens = tokenizer->encode(text.is_null() ? torture() : text.get<std::string>());
      std::string ids;
      for (const std::int32_t token : tokens) ids += (ids.empty() ? "" : " ") + std::to_string(token);
      EXPECT_EQ(ids, tested.at("ids").at(i).get<std::string>()) << tested.at("name") << ": " << text;
      if (!tested.at("back").at(i).is_null()) {
        EXPECT_EQ(tokenizer->decode(tokens), tested["back"][i].get<std::string>()) << tested.at("name");
      }
    }
    std::string bytes = "a\xff\xfe b";  // which is no text
    EXPECT_NE(tokenizer->decode(tokenizer->encode(bytes)).find("\xff\xfe"), std::string::npos);
  }
  Json lacking = whole;
  lacking["model"]["vocab"].erase("<0x41>");
  write_file(folder / "tokenizer.json", lacking.dump());
  EXPECT_SAYS(error_of([&] { load_tokenizer(folder / "tokenizer.json"); }), "has no token <0x41>");
}

TEST(TokenizerJson, CutsTextAsTheReference) {
  using Behavior = WordPattern::Behavior;
  const std::map<std::string, Behavior> behaviors = {{"Removed", Behavior::removed},
                                                     {"Isolated", Behavior::isolated},
                                                     {"MergedWithPrevious", Behavior::merged_with_previous},
                                                     {"MergedWithNext", Behavior::merged_with_next},
                                                     {"Contiguous", Behavior::contiguous}};
  PatternSearch search;
  for (const Json& tested : expected().at("splits")) {
    const Json& step = tested.at("step");
    const Json& pattern = step.at("pattern");
    const WordPattern words(
        {.pattern = pattern.contains("Regex") ? pcre2_pattern(pattern["Regex"].get<std::string>(), "test")
                                              : pcre2_literal(pattern["String"].get<std::string>()),
         .behavior = behaviors.at(step.at("behavior")),
         .invert = step.at("invert")},
        "test");
    for (std::size_t i = 0; i < tested.at("pieces").size(); ++i) {
      Json pieces = Json::array();
      const auto text = expected().at("split_texts").at(i).get<std::string>();
      words.split(text, search, [&](std::string_view piece) { pieces.push_back(piece); });
      EXPECT_EQ(pieces, tested["pieces"][i]) << step;
    }
  }
}

TEST(TokenizerJson, MergesArePairsOrTexts) {
  const TemporaryFolder folder;
  Json pairs = Json::array();
  for (const Json& merge : base()["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    pairs.push_back({text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)});
  }
  const auto ids = changed(folder, Json::object())->encode(torture());
  EXPECT_EQ(changed(folder, {{"model", {{"merges", pairs}}}})->encode(torture()), ids);
  EXPECT_LT(ids.size(), torture().size() * 2 / 3);
}

TEST(TokenizerJson, EveryByteComesBack) {
  const TemporaryFolder folder;
  const auto tokenizer = changed(folder, Json::object());
  std::string all;
  for (int round = 0; round < 2; ++round)
    for (int value = 0; value < 256; ++value) all.push_back(static_cast<char>(round ? 255 - value : value));
  std::string every_script = torture();
  std::erase(every_script, '<');  // added tokens among it would stand for no text
  for (const std::string& text : {all, std::string("caf\xC3 and \xE2\x82"), std::string("\xF0\x9F\x98"),
                                  std::string("good \xE2\x82\xAC bad \xED\xA0\x80 good"), every_script})
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  EXPECT_TRUE(tokenizer->encode("").empty());
  EXPECT_EQ(tokenizer->vocab_size(), 1001);
  EXPECT_EQ(tokenizer->end_of_document(), 1000);
  EXPECT_EQ(tokenizer->encode("a<|endoftext|>")[1], 1000);
  EXPECT_EQ(tokenizer->decode(std::vector<std::int32_t>{-1, 1000, 1001, 1 << 30}), "");
}

TEST(TokenizerJson, AddedTokensStandForTheirContentAndSpecialOnesForNothing) {
  const TemporaryFolder folder;
  const auto tokenizer = changed(
      folder, {{"added_tokens",
                {added_token(1000, "<|endoftext|>"), added_token(1001, "<é>"),
                 added_token(1002, "<hidden>", {{"special", true}}), added_token(1003, " two words ")}}});
  const std::string text = "x<é>y two words <hidden>z";
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), "x<é>y two words z");
  EXPECT_EQ(tokenizer->encode("<é>"), std::vector<std::int32_t>{1001});
}

TEST(TokenizerJson, TheEndOfADocumentIsNamedBesideItOrByItsName) {
  const TemporaryFolder folder;
  const Json two = {{"added_tokens", {added_token(1000, "<|im_end|>"), added_token(1001, "<|endoftext|>")}}};
  EXPECT_EQ(changed(folder, two)->end_of_document(), 1001);
  const std::string path = folder / "tokenizer.json", before = tokenizer_fingerprint(path);
  write_file(folder / "tokenizer_config.json", R"({"eos_token": "<|im_end|>"})");
  EXPECT_EQ(load_tokenizer(path)->end_of_document(), 1000);
  EXPECT_NE(tokenizer_fingerprint(path), before);
  write_file(folder / "tokenizer_config.json",
             R"({"eos_token": {"content": "<|im_end|>", "lstrip": false}})");
  EXPECT_EQ(load_tokenizer(path)->end_of_document(), 1000);
  write_file(folder / "tokenizer_config.json", R"({"eos_token": null})");
  EXPECT_EQ(load_tokenizer(path)->end_of_document(), 1001);
  EXPECT_EQ(tokenizer_fingerprint(path), before);
  write_file(folder / "tokenizer_config.json", R"({"eos_token": "<none>"})");
  EXPECT_SAYS(error_of([&] { load_tokenizer(path); }), "has no token <none>");
  std::filesystem::remove(folder / "tokenizer_config.json");

  EXPECT_SAYS(error_of([&] {
                changed(folder, {{"added_tokens", nullptr}});
              }),
              "no added token that is known to end a document");
  EXPECT_SAYS(error_of([&] {
                changed(folder, {{"added_tokens", {added_token(1000, "</s>"), added_token(1001, "<eos>")}}});
              }),
              "has </s> and <eos>; name the one");
}

TEST(TokenizerJson, LongWordsTakeNoQuadraticTime) {
  const TemporaryFolder folder;
  const auto tokenizer = changed(
      folder,
      {{"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}});
  std::string text;
  for (int i = 0; i < 400'000; ++i) text += "the an"[i % 6];
  const auto begin = std::chrono::steady_clock::now();
  const auto tokens = tokenizer->encode(text);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 20);
  EXPECT_EQ(tokenizer->decode(tokens), text);
}

TEST(TokenizerJson, ThreadsShareTheWordsTheyHaveSeen) {
  const TemporaryFolder folder;
  const auto tokenizer = changed(folder, Json::object());
  std::string text;
  for (int i = 0; i < 200'000; ++i) {  // more words than the cache holds, alike at their beginnings
    text += " verylongbeginning";
    for (int rest = i; rest > 0; rest /= 26) text += static_cast<char>('a' + rest % 26);
  }
  const auto alone = changed(folder, Json::object())->encode(text);
  EXPECT_TRUE(tokenizer->decode(alone) == text);
  std::vector<std::vector<std::int32_t>> results(4);
  std::vector<std::thread> threads;
  for (auto& result : results) threads.emplace_back([&] { result = tokenizer->encode(text); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_TRUE(result == alone);
}

TEST(TokenizerJson, WhatItDoesNotDoIsRefusedByName) {
  const TemporaryFolder folder;
  const Json lower = {{"type", "Lowercase"}};
  const std::vector<std::pair<Json, std::string>> table = {
      {{{"model", {{"type", "Unigram"}}}}, "model.type is Unigram"},
      {{{"model", {{"byte_fallback", true}}}}, "model.byte_fallback is true"},
      {{{"model", {{"dropout", 0.1}}}}, "model.dropout is 0.1"},
      {{{"model", {{"continuing_subword_prefix", "##"}}}}, "model.continuing_subword_prefix"},
      {{{"model", {{"end_of_word_suffix", "</w>"}}}}, "model.end_of_word_suffix"},
      {{{"model", {{"vocab", {{"a", nullptr}}}}}}, "no token for the byte 97"},
      {{{"model", {{"vocab", {{"a", -1}}}}}}, "a has the id -1"},
      {{{"model", {{"vocab", {{"a", 1'000'000'000}}}}}}, "without large gaps"},
      {{{"model", {{"vocab", {{"new", 5}}}}}}, "both have the id 5"},
      {{{"model", {{"merges", {"a b c"}}}}}, "model.merges[0] is \"a b c\""},
      {{{"model", {{"merges", {"a zzzz"}}}}}, "speaks of 'zzzz'"},
      {{{"model", nullptr}}, "an object with the field model"},
      {{{"normalizer", lower}}, "normalizer is Lowercase"},
      {{{"normalizer", {{"type", "Sequence"}, {"normalizers", {lower}}}}},
       "normalizer.normalizers is Lowercase"},
      {{{"pre_tokenizer", nullptr}}, "pre_tokenizer is null"},
      {{{"pre_tokenizer", {{"type", "Whitespace"}}}}, "pre_tokenizer is one that ends with Whitespace"},
      {sequence({{"type", "Punctuation"}, {"behavior", "Isolated"}}), "pre_tokenizer step 1 is Punctuation"},
      {sequence({{"type", "ByteLevel"}, {"add_prefix_space", false}}), "pre_tokenizer step 1 is ByteLevel"},
      {{{"decoder", nullptr}}, "decoder is null"},
      {{{"decoder", {{"type", "Fuse"}}}}, "decoder is Fuse"},
      {{{"added_tokens", {added_token(1001, "<|endoftext|>")}}}, "has the id 1001; expected is 1000"},
      {{{"added_tokens", {added_token(1000, "a")}}}, "as in model.vocab"},
      {{{"added_tokens", {added_token(1000, "")}}}, "has no content"},
      {{{"added_tokens", {added_token(1000, "<x>"), added_token(1000, "<x>")}}}, "is there twice"},
  };
  changed(folder, Json::object());  // without a change it is fine
  for (const auto& [patch, words] : table) {
    const Error error = error_of([&, &changes = patch] { changed(folder, changes); });
    EXPECT_EQ(error.fault(), Fault::data);
    EXPECT_SAYS(error, words);
    EXPECT_SAYS(error, "tokenizer.json");
  }
  write_file(folder / "x.json", "[1, 2");
  EXPECT_SAYS(error_of([&] { load_tokenizer(folder / "x.json"); }), "is not JSON");
  write_file(folder / "x.json", R"({"model": {"vocab": []}})");
  EXPECT_SAYS(error_of([&] { load_tokenizer(folder / "x.json"); }), "model.vocab is no object");
  EXPECT_SAYS(error_of([&] { load_tokenizer(folder / "none.json"); }), "none.json cannot be opened");
}

TEST(TokenizerJson, PatternsThatWouldMeanSomethingElseAreRefused) {
  const TemporaryFolder folder;
  const std::pair<const char*, const char*> table[] = {
      {R"(a\b)", R"(the escape \b)"},
      {R"((a)\1)", R"(the escape \1)"},
      {R"(\R)", R"(the escape \R)"},
      {R"([a&&b])", "an intersection"},
      {R"([a[^b]])", "a negated set within a set"},
      {R"([[:alpha:]])", "a POSIX bracket"},
      {R"([\w-z])", "a range that begins with a class"},
      {R"([]a])", "begins with ]"},
      {R"([a)", "a set that is not closed"},
      {R"(a**)", "a repetition of nothing or of a repetition"},
      {R"(a{2}+)", "a repetition of a repetition"},
      {R"(a{2}?)", "{n}?"},
      {R"(+a)", "a repetition of nothing"},
      {R"((?<name>a))", "the group (?<"},
      {R"(a(?i)b)", "(?i) that is not at the beginning"},
      {R"((?x: a))", "the group (?x"},
      {R"((?i:stra))", "a ligature"},
      {R"((?i:é))", "beyond ASCII where case is ignored"},
      {R"((?i:\p{Lu}))", R"(\p{Lu} where case is ignored)"},
      {R"(\p{Emoji})", "the property Emoji"},
      {R"(\xE9)", "no character"},
      {R"((a)", "a group that is not closed"},
      {R"(a))", "a ) without its ("},
      {R"((?<=a+)b)", "PCRE2 does not read"},
  };
  for (const auto& [pattern, words] : table) {
    const Error error = error_of([&, text = pattern] { changed(folder, sequence(split_step(text))); });
    EXPECT_EQ(error.fault(), Fault::data);
    EXPECT_SAYS(error, words);
    EXPECT_SAYS(error, "pre_tokenizer step 1");
  }
}

TEST(TokenizerJson, AnEndlessMatchIsAnErrorSoon) {
  const TemporaryFolder folder;
  const auto tokenizer = changed(folder, sequence(split_step(R"((?:a|a|aa)+[yz])")));
  const Error error = error_of([&] { tokenizer->encode(std::string(5000, 'a')); });
  EXPECT_EQ(error.fault(), Fault::data);
  EXPECT_SAYS(error, "failed at offset 0");
}

TEST(TokenizerJson, DeepMatchesGetTheStackTheyNeed) {
  PatternSearch search;
  const WordPattern words({.pattern = pcre2_pattern(R"((?:[ab]|c\d)+)", "test")}, "test");
  const std::string text = std::string(20'000, 'a') + "!b";
  std::vector<std::string> pieces;
  words.split(text, search, [&](std::string_view piece) { pieces.emplace_back(piece); });
  EXPECT_EQ(pieces, (std::vector<std::string>{text.substr(0, 20'000), "!", "b"}));
}

TEST(TextStream, HandsOutWholeCharacters) {
  const auto bytes = load_tokenizer("bytes");
  const std::string text = "a é 学 😀 \xEF\xBF\xBD.";
  TextStream stream(*bytes);
  std::string all;
  for (const std::int32_t token : bytes->encode(text)) {
    const std::string part = stream.push({&token, 1});
    EXPECT_EQ(first_invalid_utf8(part), std::string_view::npos);
    all += part;
  }
  EXPECT_EQ(all, text);
  EXPECT_EQ(stream.finish(), "");
  for (const std::string cut : {"x\xF0\x9F\x98", "x\xC3", "x\xEF\xBF\xBD"}) {
    TextStream broken(*bytes);
    EXPECT_EQ(broken.push(bytes->encode(cut)), "x");
    EXPECT_EQ(broken.finish(), cut.substr(1));
  }
  TextStream stray(*bytes);  // bytes that begin no character are not waited for
  EXPECT_EQ(stray.push(bytes->encode("\x80\x80\x80\x80\xFF")), "\x80\x80\x80\x80");
  EXPECT_EQ(stray.finish(), "\xFF");
}

TEST(TextStream, FollowsATokenizerThatLooksBack) {
  const TemporaryFolder folder;
  std::string lines;
  for (int line = 0; line < 300; ++line)
    lines += "the mixture of experts learns from text " + std::to_string(line) + "\n";
  write_file(folder / "text", lines);
  train_sentencepiece({folder / "text"}, folder / "model", {.vocab_size = 290});
  const auto tokenizer = load_tokenizer(folder / "model.model");
  const std::string text = "the experts 学習 😀 learn";
  const auto tokens = tokenizer->encode(text);
  TextStream stream(*tokenizer);
  std::string all;
  for (const std::int32_t token : tokens) {
    const std::string part = stream.push({&token, 1});
    EXPECT_EQ(part.find("\xEF\xBF\xBD"), std::string::npos) << all << "|" << part;
    all += part;
  }
  EXPECT_EQ(all + stream.finish(), text);
}

}  // namespace
}  // namespace conclave
