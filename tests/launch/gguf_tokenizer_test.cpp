// Tokenizers in GGUF files: tokens, types, scores and merges of each kind, the roles of tokens, what comes
// from an imported model, and refusals of what llama.cpp would read otherwise.
#include <algorithm>
#include <set>

#include "framework/data/tokenizer.h"
#include "framework/data/tokenizer_json/byte_alphabet.h"
#include "launch/tools/convert/gguf/export.h"
#include "launch/tools/convert/gguf/vocabulary.h"
#include "tests/launch/convert_models.h"
#include "tests/launch/gguf_reader.h"

namespace conclave {
namespace {

using test::GgufReader;

class GgufTokenizer : public testing::Test {
 protected:
  /// The keys of a file of so many rows whose recipe names the tokenizer.
  Json keys_of(const std::string& tokenizer, std::int64_t rows) {
    Recipe recipe = recipe_for("mixtral");
    recipe.model.vocab_size = rows;
    recipe.data.tokenizer = tokenizer;
    save(recipe, scratch_.path() / "run");
    return exported(scratch_.path() / "run");
  }
  Json exported(const fs::path& run, const std::string& tokenizer = "") {
    const fs::path file = scratch_.path() / "model.gguf";
    fs::remove(file);
    said_.clear();
    gguf::export_model({.checkpoint = run, .file = file, .tokenizer = tokenizer},
                       [&](const std::string& line) { said_ += line + "\n"; });
    return GgufReader(file).keys;
  }
  std::string refusal(const std::string& tokenizer) {
    return sentence_of(Fault::request, [&] { gguf::vocabulary_of(tokenizer, 1100, silent); });
  }
  std::string trained(const std::string& kind) {
    int line = 0;
    train_sentencepiece(
        [&](std::string& text) {
          text = join_text("the cat sat on the mat ", line, " and the dog ran to the cat");
          return ++line <= 200;
        },
        scratch_.path() / kind, {.vocab_size = kind == "bpe" ? 300 : 286, .kind = kind});
    return scratch_.path() / (kind + ".model");
  }
  /// The tokenizer.json of the tests, changed.
  std::string written(const std::function<void(Json&)>& change) {
    Json file = json_of(fs::path(CONCLAVE_SOURCE_FOLDER) / "tests/framework/data/tokenizers/base.json");
    change(file);
    const fs::path path = scratch_.path() / "tokenizer.json";
    put(path, file);
    return path;
  }

  ScratchDirectory scratch_;
  std::string said_;
};

Json type_counts(const Json& keys) {
  Json counts = Json::object();
  for (const Json& type : keys["tokenizer.ggml.token_type"]) {
    Json& count = counts[std::to_string(type.get<int>())];
    count = count.is_null() ? 1 : count.get<int>() + 1;
  }
  return counts;
}

void expect_distinct_texts(const Json& keys) {
  std::set<std::string> texts;
  for (const Json& text : keys["tokenizer.ggml.tokens"]) texts.insert(text.get<std::string>());
  EXPECT_EQ(texts.size(), keys["tokenizer.ggml.tokens"].size()) << "llama.cpp loads no file otherwise";
}

TEST_F(GgufTokenizer, BytesHaveOneMergeThatNoTextMakes) {
  for (const std::int64_t rows : {258, 264}) {
    const Json keys = keys_of("bytes", rows), tokens = keys["tokenizer.ggml.tokens"];
    ASSERT_EQ(tokens.size(), static_cast<std::size_t>(rows));
    for (int byte = 0; byte < 256; ++byte)
      EXPECT_EQ(bytes_of_characters(tokens[static_cast<std::size_t>(byte)].get<std::string>()),
                std::string(1, static_cast<char>(byte)));
    EXPECT_EQ(tokens[256], "<|endoftext|>");
    EXPECT_EQ(tokens[257], "\u00ff\u00ff");
    EXPECT_EQ(keys["tokenizer.ggml.merges"], Json({"\u00ff \u00ff"}));
    EXPECT_EQ(keys["tokenizer.ggml.padding_token_id"], 257);
    EXPECT_EQ(type_counts(keys), Json({{"1", 256}, {"3", 1}, {"5", rows - 257}}));
    expect_distinct_texts(keys);
    if (rows > 258) {
      EXPECT_EQ(tokens[263], "[PAD263]");
    }
  }
}

TEST_F(GgufTokenizer, PiecesKeepScoresAndKinds) {
  const std::string model = trained("bpe");
  const Json keys = keys_of(model, 304);
  EXPECT_EQ(keys["tokenizer.ggml.model"], "llama");
  EXPECT_FALSE(keys.contains("tokenizer.ggml.pre"));
  EXPECT_EQ(keys["tokenizer.ggml.add_space_prefix"], true);
  EXPECT_EQ(keys["tokenizer.ggml.unknown_token_id"], 0);
  EXPECT_EQ(keys["tokenizer.ggml.eos_token_id"], load_tokenizer(model)->end_of_document());
  EXPECT_EQ(keys["tokenizer.ggml.padding_token_id"], 300);
  const Json &tokens = keys["tokenizer.ggml.tokens"], &scores = keys["tokenizer.ggml.scores"];
  ASSERT_EQ(tokens.size(), 304u);
  ASSERT_EQ(scores.size(), 304u);
  EXPECT_EQ(tokens[300], "<|padding|>");
  EXPECT_EQ(tokens[3], "<0x00>");
  // <s>, </s> and padding; 256 bytes; three rows that nothing uses.
  EXPECT_EQ(type_counts(keys), Json({{"1", 41}, {"2", 1}, {"3", 3}, {"5", 3}, {"6", 256}}));
  for (std::size_t id = 260; id < 300; ++id) EXPECT_LE(scores[id], scores[id - 1]) << "the best comes first";
  expect_distinct_texts(keys);
}

TEST_F(GgufTokenizer, PiecesThatLlamaCppReadsOtherwiseAreRefused) {
  expect_words(refusal(trained("unigram")), {"unigram.model", "kind unigram", "reads each as bpe", "none"});
  using Kind = SentencePieceModel::Kind;
  const SentencePieceModel plain{
      .pieces = {{"<unk>", 0, Kind::unknown}, {"</s>", 0, Kind::control}, {"<0x00>", 0, Kind::byte}, {"a"}},
      .is_bpe = true,
      .byte_fallback = true};
  std::string said;
  const auto read = [&](const std::function<void(SentencePieceModel&)>& change) {
    SentencePieceModel model = plain;
    change(model);
    const auto say = [&](const std::string& line) { said += line; };
    return completed(gguf::vocabulary_of_pieces(model, "my.model", {.separator = TokenRole{1, "</s>"}}, say),
                     "my.model", 8);
  };
  const auto refused = [&](const std::function<void(SentencePieceModel&)>& change) {
    return sentence_of(Fault::request, [&] { read(change); });
  };
  EXPECT_EQ(read([](SentencePieceModel&) {}).tokens.size(), 8u);
  EXPECT_EQ(said, "");
  expect_words(refused([](auto& m) { m.removes_spaces = true; }), {"my.model", "removes spaces", "none"});
  expect_words(refused([](auto& m) { m.character_map = "z"; }), {"normalises text first"});
  expect_words(refused([](auto& m) { m.has_other_rules = true; }), {"no \u2581 in front"});
  expect_words(refused([](auto& m) { m.byte_fallback = false; }), {"no bytes for characters"});
  expect_words(refused([](auto& m) { m.pieces.push_back({"zz", 0, Kind::unused}); }), {"are not used"});
  expect_words(refused([](auto& m) {
                 m.pieces.push_back({"zz", 0, Kind::user_defined});
               }),
               {"user defined", "a space behind each"});
  expect_words(refused([](auto& m) { m.pieces.push_back({"a"}); }), {"two tokens have the text a"});
  expect_words(refused([](auto& m) { m.pieces.push_back({"\xFF"}); }), {"token 4 is not UTF-8"});
  // Without a space in front of a text, user-defined pieces are found as they stand there.
  const gguf::Vocabulary vocabulary = read([](auto& m) {
    m.add_dummy_prefix = false;
    m.pieces.push_back({"\u2581\u2581zz", 0, Kind::user_defined});
  });
  EXPECT_FALSE(vocabulary.adds_space_prefix);
  EXPECT_EQ(vocabulary.tokens[4].text, "  zz");
  EXPECT_EQ(vocabulary.tokens[4].type, gguf::TokenType::user_defined);
  EXPECT_EQ(said, "");
  // A control piece that the characters of a text make there.
  read([](auto& m) { m.pieces.insert(m.pieces.end(), {{"</"}, {"s>"}}); });
  expect_words(said, {"spells </s>", "Conclave reads its characters"});
  // A piece that is called as an unused row would be.
  EXPECT_EQ(read([](auto& m) { m.pieces.push_back({"[PAD7]"}); }).tokens[7].text, "[PAD7]_");
}

TEST_F(GgufTokenizer, ARuleOfWordsHasTheNameThatLlamaCppGivesIt) {
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const auto split = [](const std::string& pattern, const char* behavior = "Isolated", bool invert = false) {
    return Json{
        {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", behavior}, {"invert", invert}};
  };
  const std::string
      llama3 =
          R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      qwen2 =
          R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const auto name_of = [&](const std::vector<Json>& steps, bool ignore_merges) {
    const std::string path = written([&](Json& file) {
      Json list = steps;
      list.push_back(bytes);
      file["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", list}};
      file["model"]["ignore_merges"] = ignore_merges;
    });
    return gguf::vocabulary_of(path, 1100, silent).pre_tokenizer;
  };
  EXPECT_EQ(gguf::vocabulary_of(written([](Json&) {}), 1100, silent).pre_tokenizer, "gpt-2");
  EXPECT_EQ(name_of({split(llama3)}, true), "llama-bpe");
  EXPECT_EQ(name_of({split(llama3)}, false), "dbrx");
  EXPECT_EQ(name_of({split(llama3, "Removed", true)}, true), "llama-bpe");
  EXPECT_EQ(name_of({split(qwen2)}, false), "qwen2");
  for (const Json& other : {split(qwen2, "MergedWithNext"), split(qwen2 + "|x"),
                            split(qwen2, "Isolated", true), split(qwen2, "Removed")})
    expect_words(sentence_of(Fault::request, [&] { name_of({other}, false); }),
                 {"its pre_tokenizer, with ignore_merges false", "qwen2", "--tokenizer none"});
  sentence_of(Fault::request, [&] { name_of({split(qwen2)}, true); });
}

TEST_F(GgufTokenizer, ATokenizerJsonGoesWithItsTemplate) {
  const std::string path = written([](Json& file) {
    file["added_tokens"].push_back({{"id", 1001}, {"content", "<|image|>"}, {"special", false}});
    file["added_tokens"].push_back({{"id", 1002}, {"content", "<pad>"}, {"special", true}});
    file["model"]["merges"].push_back(file["model"]["merges"][0]);  // of equal pairs the last counts
  });
  std::ofstream(scratch_.path() / "chat_template.jinja") << "{{ messages }}";
  const Json keys = keys_of(path, 1008), file = json_of(path);
  EXPECT_EQ(keys["tokenizer.ggml.model"], "gpt2");
  EXPECT_EQ(keys["tokenizer.chat_template"], "{{ messages }}");
  EXPECT_EQ(keys["tokenizer.ggml.eos_token_id"], 1000);
  EXPECT_EQ(keys["tokenizer.ggml.padding_token_id"], 1002);
  EXPECT_EQ(type_counts(keys), Json({{"1", 1000}, {"3", 2}, {"4", 1}, {"5", 5}}));
  for (const auto& [text, id] : file["model"]["vocab"].items())
    EXPECT_EQ(keys["tokenizer.ggml.tokens"][id.get<std::size_t>()], text);
  const Json& merges = file["model"]["merges"];
  ASSERT_EQ(keys["tokenizer.ggml.merges"].size(), merges.size() - 1);
  EXPECT_EQ(keys["tokenizer.ggml.merges"][0], merges[1]);
  EXPECT_EQ(keys["tokenizer.ggml.merges"].back(), merges[0]);
  expect_distinct_texts(keys);

  // Without the file, the template of the name "default" in tokenizer_config.json.
  fs::remove(scratch_.path() / "chat_template.jinja");
  put(scratch_.path() / "tokenizer_config.json",
      {{"add_bos_token", true},
       {"chat_template",
        {{{"name", "tools"}, {"template", "t"}}, {{"name", "default"}, {"template", "d"}}}}});
  const Json again = exported(scratch_.path() / "run");
  EXPECT_EQ(again["tokenizer.chat_template"], "d");
  EXPECT_EQ(again["tokenizer.ggml.add_bos_token"], false) << "training has nothing before a text";
}

TEST_F(GgufTokenizer, ATokenizerJsonThatLlamaCppReadsOtherwiseIsRefused) {
  expect_words(refusal(written([](Json& file) {
                 file["normalizer"] = {{"type", "NFKC"}};
               })),
               {"normalizer changes text"});
  expect_words(refusal(written([](Json& file) { file["pre_tokenizer"]["add_prefix_space"] = true; })),
               {"add_prefix_space"});
  expect_words(refusal(written([](Json& file) { file["model"]["merges"] = Json::array(); })), {"no merges"});
  std::string said;
  const std::string path = written([](Json& file) {
    file["normalizer"] = {{"type", "NFC"}};
    file["added_tokens"].push_back(
        {{"id", 1001}, {"content", "<mask>"}, {"special", true}, {"lstrip", true}});
  });
  gguf::vocabulary_of(path, 1100, [&](const std::string& line) { said += line + "\n"; });
  expect_words(said, {"form NFC first", "<mask> takes white space"});
}

TEST_F(GgufTokenizer, AnImportedModelKeepsTheIdsItCameWith) {
  const fs::path source = scratch_.path() / "source", run = scratch_.path() / "imported";
  save(recipe_for("mixtral"), scratch_.path() / "own");
  export_model({.checkpoint = scratch_.path() / "own", .directory = source}, silent);
  Json config = json_of(source / "config.json"), tokenizer = json_of(source / "tokenizer.json");
  config["bos_token_id"] = 258;
  config["eos_token_id"] = {256, 258};
  config.erase("pad_token_id");
  config["max_position_embeddings"] = 4096;
  put(source / "config.json", config);
  tokenizer["model"]["vocab"]["th"] = 256;
  tokenizer["model"]["merges"] = {"t h"};
  tokenizer["added_tokens"] = {{{"id", 257}, {"content", "<|endoftext|>"}, {"special", true}},
                               {{"id", 258}, {"content", "<|begin|>"}, {"special", true}}};
  tokenizer["pre_tokenizer"]["use_regex"] = true;
  tokenizer["post_processor"] = {{"type", "TemplateProcessing"},
                                 {"single",
                                  {{{"SpecialToken", {{"id", "<|begin|>"}, {"type_id", 0}}}},
                                   {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}}};
  put(source / "tokenizer.json", tokenizer);
  fs::remove(source / "tokenizer_config.json");
  import_model({.directory = source, .run = run}, silent);
  const Json keys = exported(run);
  expect_words(said_, {"those of the imported model"});
  EXPECT_EQ(keys["tokenizer.ggml.bos_token_id"], 258);
  EXPECT_EQ(keys["tokenizer.ggml.eos_token_id"], 256);
  EXPECT_FALSE(keys.contains("tokenizer.ggml.padding_token_id"));
  EXPECT_EQ(keys["tokenizer.ggml.add_bos_token"], true) << "as in an exported directory";
  EXPECT_EQ(keys["llama.context_length"], 4096);

  const Json other = exported(run, "bytes");
  EXPECT_EQ(other["tokenizer.ggml.bos_token_id"], 256);
  EXPECT_EQ(other["tokenizer.ggml.add_bos_token"], false);
  const Json none = exported(run, "none");
  EXPECT_EQ(none["tokenizer.ggml.model"], "none");
  EXPECT_FALSE(none.contains("tokenizer.ggml.tokens"));
  EXPECT_EQ(none["tokenizer.ggml.bos_token_id"], 258);
}

}  // namespace
}  // namespace conclave
