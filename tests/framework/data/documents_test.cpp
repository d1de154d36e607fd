// DocumentReader: what a document is under each option, and the sentence for each kind of bad input.
#include "framework/data/documents.h"

#include <algorithm>

#include "tests/framework/data/files_for_tests.h"

namespace conclave {
namespace {

std::vector<std::string> all_texts(const std::vector<std::string>& inputs, const DocumentOptions& options) {
  DocumentReader reader(inputs, options);
  std::vector<std::string> texts;
  while (auto document = reader.next()) texts.push_back(document->text);
  EXPECT_FALSE(reader.next().has_value());
  EXPECT_EQ(reader.bytes_read(), reader.total_bytes());
  return texts;
}

using Texts = std::vector<std::string>;

DocumentOptions separated(const std::string& separator) {
  DocumentOptions options;
  options.separator = separator;
  return options;
}

TEST(Documents, SeparatorsDecideWhatADocumentIs) {
  const TemporaryFolder folder;
  const std::string text = "\none\ntwo\r\n\r\n \t\n\nthree\n";
  write_file(folder / "a.txt", text);
  EXPECT_EQ(all_texts({folder / "a.txt"}, separated("file")), Texts{text});
  EXPECT_EQ(all_texts({folder / "a.txt"}, separated("line")), (Texts{"one", "two", "three"}));
  EXPECT_EQ(all_texts({folder / "a.txt"}, separated("blank-line")), (Texts{"one\ntwo", "three"}));
  EXPECT_EQ(error_of([&] { all_texts({folder / "a.txt"}, separated("page")); }).fault(), Fault::request);
}

TEST(Documents, FoldersAreWalkedInNameOrder) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "deep/.git");
  write_file(folder / "b.txt", "b");
  write_file(folder / "a.py", "a");
  write_file(folder / "deep/c.py", "c");
  write_file(folder / "deep/.git/d.py", "hidden");
  EXPECT_EQ(all_texts({folder.path()}, {}), (Texts{"a", "b", "c"}));
  DocumentOptions options;
  options.extension = ".py";
  EXPECT_EQ(all_texts({folder.path()}, options), (Texts{"a", "c"}));
  options.extension = ".rs";
  EXPECT_SAYS(error_of([&] { all_texts({folder.path()}, options); }), "holds no file that ends in .rs");
}

TEST(Documents, JsonLines) {
  const TemporaryFolder folder;
  write_file(folder / "a.jsonl", "{\"text\": \"one\\n\\u00e9\", \"n\": 1}\n\n{\"text\": \"two\"}");
  EXPECT_EQ(all_texts({folder / "a.jsonl"}, {}), (Texts{"one\né", "two"}));

  const std::vector<std::pair<std::string, std::string>> bad = {
      {"{\"text\": \"cut", "bad.jsonl:2: this line is not valid JSON"},
      {"{\"text\": 3}", "bad.jsonl:2: the field \"text\" is a JSON number"},
      {"{\"other\": \"x\"}", "bad.jsonl:2: the JSON object has no field \"text\""},
      {"[1]", "bad.jsonl:2: this line is a JSON array"},
      {"{\"text\": \"\"}", "bad.jsonl:2: this document holds no text"}};
  for (const auto& [line, sentence] : bad) {
    write_file(folder / "bad.jsonl", "{\"text\": \"fine\"}\n" + line + "\n");
    const Error error = error_of([&] { all_texts({folder / "bad.jsonl"}, {}); });
    EXPECT_EQ(error.fault(), Fault::data);
    EXPECT_SAYS(error, sentence);
  }
}

TEST(Documents, LongOnesAreSplitAtLineEndsAndNeverInsideACharacter) {
  const TemporaryFolder folder;
  const std::string text = "first line\nsecond line\n学学学学学学学学学学学学\nend";
  write_file(folder / "a.txt", text);
  DocumentOptions options;
  options.split_long = 16;
  DocumentReader reader({folder / "a.txt"}, options);
  std::string joined;
  std::vector<bool> complete;
  while (auto piece = reader.next()) {
    EXPECT_LE(piece->text.size(), 16u);
    write_file(folder / "piece", piece->text);
    EXPECT_EQ(all_texts({folder / "piece"}, {}), Texts{piece->text});  // valid UTF-8 on its own
    joined += piece->text;
    complete.push_back(piece->complete);
  }
  EXPECT_EQ(joined, text);
  ASSERT_GE(complete.size(), 5u);
  EXPECT_EQ(std::count(complete.begin(), complete.end(), true), 1);
  EXPECT_TRUE(complete.back());
}

TEST(Documents, BadTextNamesFileAndOffset) {
  const TemporaryFolder folder;
  write_file(folder / "a.txt", "good\n\nbad\xFFtext\n");
  for (const char* separator : {"file", "line", "blank-line"}) {
    const Error error = error_of([&] { all_texts({folder / "a.txt"}, separated(separator)); });
    EXPECT_EQ(error.fault(), Fault::data);
    EXPECT_SAYS(error, folder / "a.txt");
    EXPECT_SAYS(error, "offset 9 is 255");
  }
  DocumentOptions options = separated("line");
  options.replace_invalid = true;
  EXPECT_EQ(all_texts({folder / "a.txt"}, options), (Texts{"good", "bad\xEF\xBF\xBDtext"}));
}

TEST(Documents, EmptyOnesAreErrorsUnlessSkipped) {
  const TemporaryFolder folder;
  write_file(folder / "empty.txt", "");
  write_file(folder / "blank.txt", " \n\n");
  write_file(folder / "good.txt", "good");
  EXPECT_SAYS(error_of([&] { all_texts({folder / "empty.txt"}, {}); }), "empty.txt is empty");
  EXPECT_SAYS(error_of([&] { all_texts({folder / "blank.txt"}, {}); }),
              "blank.txt:1: this document holds no text");
  EXPECT_SAYS(error_of([&] { all_texts({folder / "none.txt"}, {}); }), "none.txt cannot be read");
  DocumentOptions options;
  options.skip_empty = true;
  DocumentReader reader({folder.path()}, options);
  EXPECT_EQ(reader.next()->text, "good");
  EXPECT_FALSE(reader.next().has_value());
  EXPECT_EQ(reader.skipped(), 2);
}

/// ASCII text in another encoding: so many bytes for a letter, the letter itself at a place of them.
std::string wide(const std::string& text, std::size_t bytes, std::size_t place) {
  std::string result;
  for (const char letter : text) {
    std::string one(bytes, '\0');
    one[place] = letter;
    result += one;
  }
  return result;
}

TEST(Documents, TextThatIsNotUtf8IsNamed) {
  const TemporaryFolder folder;
  const std::string words = "Some words of an English text.\n";
  for (const auto& [name, bytes, place, mark] :
       {std::tuple<const char*, std::size_t, std::size_t, std::string>{"UTF-16", 2, 0, "\xFF\xFE"},
        {"UTF-16", 2, 1, "\xFE\xFF"},
        {"UTF-16", 2, 0, ""},
        {"UTF-16", 2, 1, ""},
        {"UTF-32", 4, 0, std::string("\xFF\xFE\0\0", 4)},
        {"UTF-32", 4, 3, std::string("\0\0\xFE\xFF", 4)},
        {"UTF-32", 4, 0, ""},
        {"UTF-32", 4, 3, ""}}) {
    write_file(folder / "a.txt", mark + wide(words, bytes, place));
    for (const bool replace : {false, true}) {
      const Error error =
          error_of([&] { DocumentReader({folder / "a.txt"}, {.replace_invalid = replace}).next(); });
      EXPECT_EQ(error.fault(), Fault::data);
      EXPECT_SAYS(error, std::string(" is ") + name + " text, and UTF-8 is expected");
    }
  }
  write_file(folder / "zeros.txt", std::string(100, '\0'));
  EXPECT_SAYS(error_of([&] { DocumentReader({folder / "zeros.txt"}, {}).next(); }), "offset 0 is a zero");
  write_file(folder / "b.txt", words + std::string(1, '\0') + "x");
  EXPECT_SAYS(error_of([&] { DocumentReader({folder / "b.txt"}, {}).next(); }), "offset 31 is a zero");
  EXPECT_EQ(DocumentReader({folder / "b.txt"}, {.replace_invalid = true}).next()->text,
            words + "\xEF\xBF\xBDx");
}

TEST(Documents, AMarkBeforeUtf8IsDroppedEverywhere) {
  const TemporaryFolder folder;
  const std::string mark = "\xEF\xBB\xBF", record = "{\"text\": \"one\"}\n";
  for (const auto& [name, content] : {std::pair<const char*, std::string>{"a.txt", "one"},
                                      {"b.jsonl", record},
                                      {"c.json", record + record}}) {
    write_file(folder / name, mark + content);
    EXPECT_EQ(DocumentReader({folder / name}, {}).next()->text, "one") << name;
  }
  EXPECT_EQ(DocumentReader({folder / "a.txt"}, {.separator = "line"}).next()->text, "one");
}

TEST(Documents, JsonThatIsReadAsTextIsCounted) {
  const TemporaryFolder folder;
  write_file(folder / "array.json", "[\"one\", \"two\"]");
  write_file(folder / "field.json", "{\"content\": \"one\"}");
  write_file(folder / "cut.json", "{\"text\": \"one");
  write_file(folder / "good.json", "{\"text\": \"one\"}");
  write_file(folder / "plain.txt", "[1]");
  const auto read_as_text = [&](const DocumentOptions& options) {
    DocumentReader reader({folder.path()}, options);
    while (reader.next()) {
    }
    return reader.json_read_as_text();
  };
  EXPECT_EQ(read_as_text({}),
            (std::vector<std::string>{folder / "array.json", folder / "cut.json", folder / "field.json"}));
  EXPECT_TRUE(read_as_text({.json_as_text = true}).empty()) << "it was asked for";
}

TEST(Documents, ARecordWithoutTextIsABadLine) {
  const TemporaryFolder folder;
  write_file(folder / "a.jsonl", "{\"text\": \"\"}\n{\"text\": \"one\"}\n{\"text\": \" \"}\n");
  EXPECT_SAYS(error_of([&] { DocumentReader({folder / "a.jsonl"}, {}).next(); }), "holds no text");
  DocumentReader reader({folder / "a.jsonl"}, {.skip_bad_lines = true});
  EXPECT_EQ(reader.next()->text, "one");
  EXPECT_FALSE(reader.next());
  EXPECT_EQ(reader.bad_lines(), 2);
  EXPECT_NE(reader.first_bad_line().find("a.jsonl:1: "), std::string::npos) << reader.first_bad_line();
}

TEST(Documents, AnExtensionWithoutItsDotIsSuggested) {
  const TemporaryFolder folder;
  write_file(folder / "a.txt", "one");
  EXPECT_SAYS(error_of([&] { DocumentReader({folder.path()}, {.extension = "txt"}); }),
              "did you mean --extension .txt?");
}

}  // namespace
}  // namespace conclave
