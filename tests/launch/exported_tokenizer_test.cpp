// Exported tokenizers: the names of the ends of documents and of padding, and nothing put around a text.
#include <map>
#include <set>

#include "framework/data/sentencepiece_model.h"
#include "framework/data/tokenizer.h"
#include "launch/tools/convert/chat_templates.h"
#include "launch/tools/convert/tokenizer_json_text.h"
#include "tests/launch/convert_models.h"

namespace conclave {
namespace {

class ExportedTokenizer : public testing::Test {
 protected:
  /// Exports a model of so many ids whose recipe names the tokenizer.
  fs::path exported(const std::string& tokenizer, std::int64_t vocab_size,
                    const std::string& architecture = "mixtral") {
    Recipe recipe = recipe_for(architecture);
    recipe.model.vocab_size = vocab_size;
    recipe.data.tokenizer = tokenizer;
    const std::string name = std::to_string(++exports_);
    save(recipe, scratch_.path() / ("run" + name));
    export_model({.checkpoint = scratch_.path() / ("run" + name), .directory = scratch_.path() / name},
                 [&](const std::string& line) { said_ += line + "\n"; });
    return scratch_.path() / name;
  }
  /// bos and eos are the separator, padding is another token or none, in every file that names them.
  static void expect_roles(const fs::path& directory, const std::string& separator, std::int64_t id,
                           const std::string& padding = "", std::int64_t padding_id = -1) {
    for (const char* file : {"config.json", "generation_config.json"}) {
      const Json json = json_of(directory / file);
      EXPECT_EQ(json["bos_token_id"], id) << file;
      EXPECT_EQ(json["eos_token_id"], id) << file;
      if (padding.empty())
        EXPECT_FALSE(json.contains("pad_token_id")) << file << json["pad_token_id"];
      else
        EXPECT_EQ(json["pad_token_id"], padding_id) << file;
    }
    const Json config = json_of(directory / "tokenizer_config.json");
    EXPECT_EQ(config["bos_token"], separator);
    EXPECT_EQ(config["eos_token"], separator);
    EXPECT_EQ(config["add_bos_token"], false);
    EXPECT_EQ(config["add_eos_token"], false);
    EXPECT_EQ(config["model_input_names"], Json({"input_ids", "attention_mask"}));
    EXPECT_EQ(config["model_max_length"], 12);
    if (padding.empty())
      EXPECT_FALSE(config.contains("pad_token"));
    else
      EXPECT_EQ(config["pad_token"], padding);
    EXPECT_FALSE(fs::exists(directory / "special_tokens_map.json")) << "it would say the same again";
  }
  /// A SentencePiece model of 300 pieces.
  std::string trained_pieces() {
    int line = 0;
    train_sentencepiece(
        [&](std::string& text) {
          text = join_text("the cat sat on the mat ", line, " and the dog ran to the cat");
          return ++line <= 200;
        },
        scratch_.path() / "pieces", {.vocab_size = 300, .kind = "bpe"});
    return scratch_.path() / "pieces.model";
  }
  static std::set<std::int64_t> added_ids(const fs::path& directory) {
    std::set<std::int64_t> ids;
    const Json tokenizer = json_of(directory / "tokenizer.json");
    for (const Json& token : tokenizer["added_tokens"]) ids.insert(token["id"].get<std::int64_t>());
    return ids;
  }
  ScratchDirectory scratch_;
  std::string said_;
  int exports_ = 0;
};

TEST_F(ExportedTokenizer, OfBytesPadsWithARowThatNoTextUses) {
  const fs::path wide = exported("bytes", 264);
  expect_roles(wide, "<|endoftext|>", 256, "<|padding|>", 257);
  EXPECT_EQ(added_ids(wide), (std::set<std::int64_t>{256, 257}));
  const auto tokenizer = load_tokenizer(wide / "tokenizer.json");
  EXPECT_EQ(tokenizer->end_of_document(), 256);
  EXPECT_EQ(tokenizer->encode("<|padding|>"), std::vector<std::int32_t>{257});

  const fs::path full = exported("bytes", 257);
  expect_roles(full, "<|endoftext|>", 256);
  EXPECT_EQ(added_ids(full), (std::set<std::int64_t>{256}));
  // transformers takes a missing key of this architecture for token 1.
  const Json olmoe = json_of(exported("bytes", 257, "olmoe") / "config.json");
  EXPECT_TRUE(olmoe.contains("pad_token_id") && olmoe["pad_token_id"].is_null());
}

TEST_F(ExportedTokenizer, OfPiecesPadsWithARowBehindThem) {
  const std::string model = trained_pieces();
  const std::int32_t end = load_tokenizer(model)->end_of_document();
  const fs::path wide = exported(model, 304), full = exported(model, 300);
  expect_roles(wide, "</s>", end, "<|padding|>", 300);
  EXPECT_TRUE(added_ids(wide).contains(300));
  expect_roles(full, "</s>", end);
  EXPECT_FALSE(added_ids(full).contains(300));

  // It goes in and out again: the two files tell the same pieces, and the roles stay.
  const Recipe back = import_model({.directory = wide, .run = scratch_.path() / "back"}, silent);
  EXPECT_EQ(back.data.tokenizer, scratch_.path() / "back" / "tokenizer.model");
  export_model({.checkpoint = scratch_.path() / "back", .directory = scratch_.path() / "again"}, silent);
  for (const char* file :
       {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"})
    EXPECT_EQ(json_of(scratch_.path() / "again" / file), json_of(wide / file)) << file;
}

/// A field of a protocol buffer: a text or a message.
std::string field(int number, const std::string& bytes) {
  std::string message(1, static_cast<char>(number << 3 | 2));
  for (std::size_t rest = bytes.size(); true; rest >>= 7) {
    message += static_cast<char>((rest & 0x7F) | (rest > 0x7F ? 0x80 : 0));
    if (rest <= 0x7F) break;
  }
  return message + bytes;
}
/// One that is a small number.
std::string field(int number, int value) {
  return {static_cast<char>(number << 3), static_cast<char>(value)};
}

// Held to transformers by tests/interop; here, that each rule of the file has its step, in SentencePiece's
// order.
TEST_F(ExportedTokenizer, OfPiecesNormalisesAsTheFileSays) {
  train_sentencepiece(
      [line = 0](std::string& text) mutable {
        text = join_text("the cat sat on the mat ", line, " and the dog ran to the cat");
        return ++line <= 200;
      },
      scratch_.path() / "pieces", {.vocab_size = 300, .kind = "bpe"});
  std::ifstream file(scratch_.path() / "pieces.model", std::ios::binary);
  const std::string plain{std::istreambuf_iterator<char>(file), {}};
  const auto steps_of = [&](const std::string& normalizer) {  // which goes over the one before
    const fs::path model = scratch_.path() / "normalising.model";
    std::ofstream(model, std::ios::binary) << plain << field(3, normalizer);
    said_.clear();
    const fs::path directory = exported(model, 304);
    if (!fs::exists(directory / "tokenizer.json")) return Json();
    return json_of(directory / "tokenizer.json")["normalizer"]["normalizers"];
  };
  const Json ends = {{"type", "Replace"}, {"pattern", {{"Regex", "\\A +| +\\z"}}}, {"content", ""}},
             several = {{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", " "}},
             prefix = {{"type", "Prepend"}, {"prepend", "\u2581"}},
             escape = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}};
  EXPECT_EQ(steps_of(field(3, 1) + field(4, 1)), Json({ends, several, prefix, escape}));
  EXPECT_EQ(steps_of(field(3, 0) + field(4, 0)), Json({escape}));
  EXPECT_TRUE(steps_of(field(5, 0)).is_null());
  expect_words(said_, {"tokenizer.json has no equal", "may give other ids"});

  SentencePieceModel model{.pieces = {{"<unk>", 0, SentencePieceModel::Kind::unknown}}};
  for (const auto& [bytes, base64] : std::map<std::string, std::string>{
           {"a", "YQ=="}, {"ab", "YWI="}, {"abc", "YWJj"}, {"\xFF\xFE\xFB", "//77"}}) {
    model.character_map = bytes;
    const Json json = sentencepiece_json(model, {});
    EXPECT_EQ(json["normalizer"]["normalizers"][0],
              Json({{"type", "Precompiled"}, {"precompiled_charsmap", base64}}));
  }
}

TEST_F(ExportedTokenizer, ThatWasBroughtAlongPutsNothingAroundAText) {
  Json brought = json_of(exported("bytes", 260) / "tokenizer.json");
  brought["added_tokens"] = {{{"id", 256}, {"content", "<|endoftext|>"}, {"special", true}},
                             {{"id", 257}, {"content", "<|begin|>"}, {"special", true}},
                             {{"id", 258}, {"content", "<|filler|>"}, {"special", true}}};
  const Json begins = {{"type", "TemplateProcessing"},
                       {"single",
                        {{{"SpecialToken", {{"id", "<|begin|>"}, {"type_id", 0}}}},
                         {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}}},
             bare = {{"type", "TemplateProcessing"},
                     {"single", {{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}}},
             bytes = {{"type", "ByteLevel"}, {"trim_offsets", false}};
  struct Case {
    Json came, left;
  };
  const std::vector<Case> table = {
      {nullptr, nullptr},
      {bytes, bytes},
      {bare, bare},
      {begins, nullptr},
      {{{"type", "Sequence"}, {"processors", {bytes, begins}}},
       {{"type", "Sequence"}, {"processors", {bytes}}}},
      {{{"type", "Sequence"}, {"processors", {begins}}}, nullptr},
      {{{"type", "RobertaProcessing"}, {"sep", {"</s>", 2}}, {"cls", {"<s>", 0}}}, nullptr},
  };
  const fs::path folder = scratch_.path() / "brought";
  fs::create_directory(folder);
  put(folder / "tokenizer_config.json", {{"eos_token", "<|endoftext|>"},
                                         {"bos_token", "<|begin|>"},
                                         {"pad_token", "<|endoftext|>"},
                                         {"add_bos_token", true},
                                         {"model_max_length", 131072},
                                         {"kept", 7}});
  for (const Case& one : table) {
    brought["post_processor"] = one.came;
    put(folder / "tokenizer.json", brought);
    said_.clear();
    const fs::path directory = exported(folder / "tokenizer.json", 260);
    const Json out = json_of(directory / "tokenizer.json");
    EXPECT_EQ(out["post_processor"], one.left) << one.came;
    EXPECT_EQ(said_.find("puts tokens around a text") != std::string::npos, one.came != one.left);
    Json rest = brought;
    rest["post_processor"] = one.left;
    EXPECT_EQ(out, rest);
    expect_roles(directory, "<|endoftext|>", 256);  // which is no padding, whatever the file says
    EXPECT_EQ(json_of(directory / "tokenizer_config.json")["kept"], 7);
  }
  put(folder / "tokenizer_config.json", {{"eos_token", "<|endoftext|>"}, {"pad_token", "<|filler|>"}});
  expect_roles(exported(folder / "tokenizer.json", 260), "<|endoftext|>", 256, "<|filler|>", 258);
  brought["added_tokens"][2]["content"] = "<pad>";
  put(folder / "tokenizer.json", brought);
  fs::remove(folder / "tokenizer_config.json");
  expect_roles(exported(folder / "tokenizer.json", 260), "<|endoftext|>", 256, "<pad>", 258);
}

/// Puts chat templates into a directory in all forms, as one who has fine-tuned its model does.
void put_templates(const fs::path& directory) {
  Json config = Json::object();
  if (fs::exists(directory / "tokenizer_config.json")) config = json_of(directory / "tokenizer_config.json");
  config["chat_template"] = Json::array({{{"name", "default"}, {"template", "{{ messages }} \u00e9"}}});
  put(directory / "tokenizer_config.json", config);
  std::ofstream(directory / "chat_template.jinja") << "{% for m in messages %}{{ m }}{% endfor %}\n";
  std::ofstream(directory / "chat_template.json") << R"({"chat_template": "{{ messages }}"})";
  fs::create_directory(directory / "additional_chat_templates");
  std::ofstream(directory / "additional_chat_templates" / "tools.jinja") << "{{ tools }}";
}

void expect_templates(const fs::path& directory) {
  const Json config = json_of(directory / "tokenizer_config.json");
  EXPECT_EQ(config.value("chat_template", Json()),
            Json::array({{{"name", "default"}, {"template", "{{ messages }} \u00e9"}}}));
  EXPECT_EQ(config["add_bos_token"], false);
  for (const auto& [name, text] : std::map<std::string, std::string>{
           {"chat_template.jinja", "{% for m in messages %}{{ m }}{% endfor %}\n"},
           {"chat_template.json", R"({"chat_template": "{{ messages }}"})"},
           {"additional_chat_templates/tools.jinja", "{{ tools }}"}}) {
    std::ifstream file(directory / name);
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), text) << name;
  }
}

TEST_F(ExportedTokenizer, HandsChatTemplatesOnInEveryForm) {
  const std::string pieces = trained_pieces();
  int i = 0;
  for (const std::string& tokenizer : {std::string("bytes"), pieces}) {
    SCOPED_TRACE(tokenizer);
    const fs::path tuned = exported(tokenizer, 320), run = scratch_.path() / ("tuned" + std::to_string(++i)),
                   out = scratch_.path() / ("handed-on" + std::to_string(i));
    put_templates(tuned);
    put(tuned / "generation_config.json", {{"temperature", 0.25}, {"do_sample", true}});
    import_model({.directory = tuned, .run = run}, silent);
    export_model({.checkpoint = run, .directory = out}, silent);
    expect_templates(out);
    const Json generation = json_of(out / "generation_config.json");
    EXPECT_EQ(generation["temperature"], 0.25);
    EXPECT_EQ(generation["do_sample"], true);
    EXPECT_EQ(generation["eos_token_id"], json_of(out / "config.json")["eos_token_id"]);
  }
  // Those that lie beside a tokenizer that a recipe names go along too.
  const fs::path brought = scratch_.path() / "brought";
  fs::create_directory(brought);
  fs::copy_file(pieces, brought / "tokenizer.model");
  fs::copy_file(exported("bytes", 264) / "tokenizer.json", brought / "tokenizer.json");
  put_templates(brought);
  expect_templates(exported(brought / "tokenizer.model", 320));
  expect_templates(exported(brought / "tokenizer.json", 320));
}

TEST(ChatTemplates, StayInTheirDirectory) {
  for (const char* name : {"../escaped.jinja", "/tmp/escaped.jinja", "additional_chat_templates/../x.jinja",
                           "additional_chat_templates/x.py", "config.json"})
    expect_words(sentence_of(Fault::data,
                             [&] {
                               ChatTemplates::of(Json{{"in_config", nullptr}, {"files", {{name, "text"}}}});
                             }),
                 {name, "expected chat_template.jinja"});
}

}  // namespace
}  // namespace conclave
