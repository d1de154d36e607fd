// JSON files as documents: which files have records, what a record's text is, and lines that are no records.
#include "framework/data/json_records.h"

#include "framework/data/documents.h"
#include "tests/framework/data/files_for_tests.h"

namespace conclave {
namespace {

using Texts = std::vector<std::string>;

Texts texts_of(const std::string& path, DocumentOptions options = {}) {
  DocumentReader reader({path}, std::move(options));
  Texts texts;
  while (auto document = reader.next()) texts.push_back(document->text);
  EXPECT_EQ(reader.bytes_read(), reader.total_bytes());
  return texts;
}

TEST(JsonRecords, EndingAndContentSayWhatAFileIs) {
  const TemporaryFolder folder;
  const std::string two_lines = "{\"text\": \"one\"}\n{\"text\": \"two\", \"n\": [1, {\"a\": \"}\\\"\"}]}\n";
  const Texts both = {"one", "two"};
  const std::vector<std::pair<std::string, std::string>> records = {
      {"a.jsonl", two_lines},
      {"a.JSONL", two_lines},
      {"a.NdJson", two_lines},
      {"a.json", two_lines},
      {"a.JSON", "\xEF\xBB\xBF" + two_lines},
      {"a.json", "[{\"text\": \"one\"},\n {\"text\": \"two\"}]\n"},
      {"a.json", "[\n  {\n    \"text\": \"one\"\n  },\n  {\n    \"text\": \"two\"\n  }\n]"},
      {"a.json", "{\n \"text\": \"one\"\n}\n{\n \"text\": \"two\"\n}\n"},
      {"a.json", "{\"text\": \"one\"} {\"text\": \"two\"}"}};
  for (const auto& [name, content] : records) {
    write_file(folder / name, content);
    EXPECT_EQ(texts_of(folder / name), both) << name << "\n" << content;
    std::filesystem::remove(folder / name);
  }
  write_file(folder / "a.json", "{\n  \"text\": \"one\"\n}\n");
  EXPECT_EQ(texts_of(folder / "a.json"), Texts{"one"});
  for (const char* text :
       {"{\"version\": 2}\n", "{\n  \"name\": \"one\"\n}", "[1, 2]", "[]", "# no JSON", "{ // no}"}) {
    write_file(folder / "a.json", text);
    EXPECT_EQ(texts_of(folder / "a.json"), Texts{text});
  }
  write_file(folder / "a.json", two_lines);
  EXPECT_EQ(texts_of(folder / "a.json", {.json_as_text = true}), Texts{two_lines});
  EXPECT_SAYS(error_of([&] { texts_of(folder / "a.json", {.json_field = "content"}); }),
              "a.json:1: the JSON object has no field \"content\"");
}

TEST(JsonRecords, ValuesThatDoNotEndAreErrors) {
  const TemporaryFolder folder;
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"[{\"text\": \"one\"}", "a.json:1: the JSON array has no end"},
      {"[{\"text\": \"one\"},\n{\"text\": \"tw", "a.json:2: the JSON object that begins here has no end"},
      {"[{\"text\": \"one\"},\n3]",
       "a.json:2: a JSON object like the others of this file was expected, and '3' came"},
      {"{\"text\": \"on\n{\"text\": \"two\"}\n", "a.json:1: this line is not valid JSON"}};
  for (const auto& [content, sentence] : bad) {
    write_file(folder / "a.json", content);
    const Error error = error_of([&] { texts_of(folder / "a.json"); });
    EXPECT_EQ(error.fault(), Fault::data);
    EXPECT_SAYS(error, sentence);
  }
}

TEST(JsonRecords, AreReadAsPythonReadsThem) {
  const std::vector<std::pair<std::string, std::string>> read = {
      {R"({"text": "a", "score": NaN})", "a"},
      {R"({"score": [Infinity, -Infinity, 1e999, -1E+400], "text": "a NaN \\"})", "a NaN \\"},
      {R"({"text": "\ud83d\ude00 \ud800"})", "\xF0\x9F\x98\x80 \xEF\xBF\xBD"},
      {R"({"text": "\udc00\ud800\ud800\udc00x"})", "\xEF\xBF\xBD\xEF\xBF\xBD\xF0\x90\x80\x80x"},
      {R"({"text": "\\ud800 is no escape", "n": NaN})", "\\ud800 is no escape"}};
  for (const auto& [record, text] : read)
    EXPECT_EQ(text_of_record(record, "text", "here").text, text) << record;
  EXPECT_TRUE(text_of_record(R"({"text": "\ud800"})", "text", "here").lone_surrogates);
  EXPECT_FALSE(text_of_record(R"({"text": "a", "other": "\ud800"})", "text", "here").lone_surrogates);
  EXPECT_FALSE(text_of_record(R"({"text": "a", "n": NaN})", "text", "here").lone_surrogates);
  for (const char* record : {R"({"text": NaN})", R"({"text": "a", "n": nan})", R"({"text": "a", "n": 01})",
                             R"({"text": "a)", R"({"text": "\ud80"})", R"({"text": "a", "n": Na})", ""})
    EXPECT_EQ(error_of([&] { text_of_record(record, "text", "here"); }).fault(), Fault::data) << record;
}

TEST(JsonRecords, BadLinesArePassedOverWithACount) {
  const TemporaryFolder folder;
  write_file(folder / "a.jsonl",
             "{\"text\": \"one\"}\n{\"text\": \"cut\n\n[1]\n{\"other\": 1}\n{\"text\": "
             "\"b\xFF\"}\n{\"text\": \"two\"}");
  EXPECT_SAYS(error_of([&] { texts_of(folder / "a.jsonl"); }), "a.jsonl:2: this line is not valid JSON");
  DocumentReader reader({folder / "a.jsonl"}, {.skip_bad_lines = true});
  EXPECT_EQ(reader.next()->text, "one");
  EXPECT_EQ(reader.next()->text, "two");
  EXPECT_FALSE(reader.next().has_value());
  EXPECT_EQ(reader.bad_lines(), 4);
  EXPECT_NE(reader.first_bad_line().find("a.jsonl:2: this line is not valid JSON"), std::string::npos);

  write_file(folder / "a.txt", "good\nbad\xFF\n");
  EXPECT_EQ(texts_of(folder / "a.txt", {.separator = "line", .skip_bad_lines = true}), Texts{"good"});
  // A whole text is no line.
  EXPECT_SAYS(error_of([&] { texts_of(folder / "a.txt", {.skip_bad_lines = true}); }), "is not UTF-8 text");
}

}  // namespace
}  // namespace conclave
