// `conclave tokenize` from arguments to files: what it writes, what it holds out; an error leaves nothing.
#include "launch/tools/commands/tokenize.h"

#include <algorithm>
#include <set>

#include "framework/data/token_description.h"
#include "framework/data/tokenizer.h"
#include "tests/framework/data/files_for_tests.h"

namespace conclave {
namespace {

std::vector<std::string> texts_of(const std::string& prefix, const std::string& tokenizer_name) {
  const auto tokenizer = load_tokenizer(tokenizer_name);
  const TokenFile file(prefix, tokenizer->vocab_size());
  std::vector<std::string> texts;
  for (std::int64_t document = 0; document < file.documents(); ++document) {
    const std::int64_t begin = file.document_begin(document),
                       count = file.document_begin(document + 1) - begin;
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
    file.read(begin, count, tokens.data());
    EXPECT_EQ(tokens.back(), tokenizer->end_of_document());
    texts.push_back(tokenizer->decode(tokens));
  }
  return texts;
}

std::string many_lines() {
  std::string lines;
  for (int i = 0; i < 400; ++i) lines += "line " + std::to_string(i) + " of the text über 学習\n";
  return lines;
}

TEST(Tokenize, WritesDocumentsAndTheirDescription) {
  const TemporaryFolder folder;
  write_file(folder / "a.jsonl", "{\"body\": \"one\"}\n{\"body\": \"zwei é\"}\n");
  EXPECT_EQ(run_tokenize(
                {"--output", folder / "new/web", "--domain=web", "--json-field", "body", folder / "a.jsonl"}),
            0);
  EXPECT_EQ(texts_of(folder / "new/web", "bytes"), (std::vector<std::string>{"one", "zwei é"}));
  const auto description = read_token_description(folder / "new/web");
  ASSERT_TRUE(description.has_value());
  EXPECT_EQ(description->domain, "web");
  EXPECT_EQ(description->tokenizer, "bytes");
  EXPECT_EQ(description->vocab_size, 257);
  EXPECT_EQ(description->documents, 2);
  EXPECT_EQ(description->tokens, 4 + 8);
}

TEST(TokenDescription, RefusesNumbersThatAreNotWholeOrTooLarge) {
  const TemporaryFolder folder;
  for (const char* number : {"25777777777777777777777", "9223372036854775808", "257.5", "\"257\""}) {
    write_file(folder / "web.json", std::string("{\"tokenizer\": \"bytes\", \"vocab_size\": ") + number +
                                        ", \"documents\": 3, \"tokens\": 5}");
    try {
      read_token_description(folder / "web");
      ADD_FAILURE() << number << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::data);
      EXPECT_NE(std::string(error.what()).find("vocab_size is "), std::string::npos) << error.what();
    }
  }
}

TEST(Tokenize, HoldsTheSameDocumentsOutEveryTime) {
  const TemporaryFolder folder;
  write_file(folder / "a.txt", many_lines());
  const auto split = [&](const std::string& name) {
    run_tokenize(
        {"--output", folder / name, "--held-out", "0.1", "--document-separator", "line", folder / "a.txt"});
    return texts_of(folder / name + "-validation", "bytes");
  };
  const auto held_out = split("x");
  EXPECT_EQ(held_out, split("y"));
  EXPECT_GT(held_out.size(), 20u);
  EXPECT_LT(held_out.size(), 60u);
  const auto kept = texts_of(folder / "x", "bytes");
  EXPECT_EQ(kept.size() + held_out.size(), 400u);
  std::set<std::string> all(kept.begin(), kept.end());
  all.insert(held_out.begin(), held_out.end());
  EXPECT_EQ(all.size(), 400u);
}

/// Writes `count` files that --split-long cuts into several pieces each, tokenizes them and gives back which
/// of them have text in PREFIX and which in PREFIX-validation.
std::pair<std::set<int>, std::set<int>> files_on_both_sides(const TemporaryFolder& folder, int count) {
  const std::string input = folder / "input-" + std::to_string(count), x = input + "-tokens";
  std::filesystem::create_directory(input);
  for (int file = 0; file < count; ++file) {
    std::string text;
    for (int line = 0; line < 40; ++line) text += "<" + std::to_string(file) + "> and more of it\n";
    write_file(input + "/" + std::to_string(100 + file), text);
  }
  run_tokenize({"--output", x, "--split-long", "64", "--held-out", "0.3", input});
  const auto files_in = [](const std::string& prefix) {
    const TokenFile file(prefix, 257);
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.tokens()));
    file.read(0, file.tokens(), tokens.data());
    const std::string text = load_tokenizer("bytes")->decode(tokens);
    std::set<int> files;
    for (std::size_t at = text.find('<'); at != std::string::npos; at = text.find('<', at + 1))
      files.insert(std::stoi(text.substr(at + 1)));
    return files;
  };
  return {files_in(x), files_in(x + "-validation")};
}

TEST(Tokenize, HoldsWholeDocumentsOutWhereThereAreEnough) {
  const TemporaryFolder folder;
  for (const int count : {20, 60}) {
    const auto [kept, held_out] = files_on_both_sides(folder, count);
    EXPECT_EQ(kept.size() + held_out.size(), static_cast<std::size_t>(count));
    for (const int file : held_out) EXPECT_FALSE(kept.contains(file)) << "document " << file << " leaks";
  }
  const auto [kept, held_out] = files_on_both_sides(folder, 19);  // too few: pieces are held out
  EXPECT_EQ(kept.size(), 19u);
  EXPECT_GT(held_out.size(), 10u);
}

TEST(Tokenize, OptionsAreReadAsByEveryCommand) {
  EXPECT_SAYS(error_of([] {
                run_tokenize({"--outptu", "x", "a.txt"});
              }),
              "there is no option '--outptu'; did you mean '--output'?");
  EXPECT_SAYS(error_of([] { run_tokenize({"--output=", "a.txt"}); }), "--output came with an empty value");
  EXPECT_SAYS(error_of([] {
                run_tokenize({"--output", "x", "--split-long", "1e3", "a.txt"});
              }),
              "--split-long 1e3 came, expected a whole number");
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(run_tokenize({"--help"}), 0);
  const std::string help = ::testing::internal::GetCapturedStdout();
  EXPECT_NE(help.find("usage: conclave tokenize [options] INPUT..."), std::string::npos) << help;
  EXPECT_NE(help.find("20 documents or more"), std::string::npos) << help;
  EXPECT_NE(help.find("Examples:"), std::string::npos) << help;
}

TEST(Tokenize, PiecesOfALongDocumentGiveAllItsText) {
  const TemporaryFolder folder;
  write_file(folder / "a.txt", many_lines());
  run_tokenize({"--output", folder / "x", "--split-long", "1000", folder / "a.txt"});
  const TokenFile file(folder / "x", 257);
  EXPECT_GT(file.documents(), 10);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.tokens()));
  file.read(0, file.tokens(), tokens.data());
  EXPECT_EQ(load_tokenizer("bytes")->decode(tokens), many_lines());
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), 256),
            1);  // only the text's own end is an end of document
}

TEST(Tokenize, TrainsAModelAndUsesIt) {
  const TemporaryFolder folder;
  write_file(folder / "a.txt", many_lines());
  EXPECT_EQ(
      run_tokenize({"--train-sentencepiece", folder / "pieces", "--vocab-size", "310", folder / "a.txt"}), 0);
  run_tokenize({"--output", folder / "x", "--tokenizer", folder / "pieces.model", folder / "a.txt"});
  EXPECT_EQ(texts_of(folder / "x", folder / "pieces.model"), std::vector<std::string>{many_lines()});
  EXPECT_LT(TokenFile(folder / "x", 310).tokens(), static_cast<std::int64_t>(many_lines().size()) / 2);
}

TEST(Tokenize, AnOutputThatIsAnInputIsRefused) {
  const TemporaryFolder folder;
  const std::string corpus = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
  write_file(folder / "corpus.json", corpus);
  std::filesystem::create_directory(folder / "links");
  std::filesystem::create_symlink(folder / "corpus.json", folder / "links/other.json");
  std::filesystem::create_hard_link(folder / "corpus.json", folder / "links/held.bin");
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"--output", folder / "corpus", folder / "corpus.json"},
           {"--output", folder / "corpus", folder.path()},
           {"--output", folder / "links/other", folder / "corpus.json"},
           {"--output", folder / "x", "--held-out", "0.5", "--held-out-output", folder / "links/held",
            folder / "corpus.json"},
           {"--output", folder / "corpus", "--tokenizer", folder / "corpus.json",
            folder / "links/held.bin"}}) {
    const auto before = folder.names();
    const Error error = error_of([&] { run_tokenize(words); });
    EXPECT_TRUE(error.fault() == Fault::request || words.size() == 5) << error.what();
    EXPECT_EQ(folder.names(), before);
    EXPECT_EQ(read_file(folder / "corpus.json"), corpus);
  }
  EXPECT_SAYS(error_of([&] {
                run_tokenize({"--output", folder / "corpus", folder / "corpus.json"});
              }),
              "corpus.json would be written, and it is the input");
  EXPECT_EQ(run_tokenize({"--output", folder / "tokens", folder / "corpus.json"}), 0);
  EXPECT_EQ(texts_of(folder / "tokens", "bytes"), (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(run_tokenize({"--replace", "--output", folder / "tokens", folder / "corpus.json"}), 0);
  write_file(folder / "pieces.model", many_lines());
  EXPECT_EQ(error_of([&] {
              run_tokenize({"--train-sentencepiece", folder / "pieces", folder / "pieces.model"});
            }).fault(),
            Fault::request);
  EXPECT_EQ(read_file(folder / "pieces.model"), many_lines());
}

TEST(Tokenize, SaysHowManyBadLinesItPassedOver) {
  const TemporaryFolder folder;
  write_file(folder / "a.jsonl", "{\"text\": \"one\"}\nno JSON\n{\"text\": \"\\ud800\"}\n{}\n");
  const std::vector<std::string> words = {"--output", folder / "x", folder / "a.jsonl"};
  EXPECT_EQ(error_of([&] { run_tokenize(words); }).fault(), Fault::data);
  ::testing::internal::CaptureStdout();
  std::vector<std::string> skipping = words;
  skipping.push_back("--skip-bad-lines");
  EXPECT_EQ(run_tokenize(skipping), 0);
  const std::string said = ::testing::internal::GetCapturedStdout();
  EXPECT_NE(said.find("2 bad lines passed over; the first: "), std::string::npos) << said;
  EXPECT_NE(said.find("1 document has halves of surrogate pairs"), std::string::npos) << said;
  EXPECT_EQ(texts_of(folder / "x", "bytes"), (std::vector<std::string>{"one", "\xEF\xBF\xBD"}));
}

TEST(Tokenize, BadInputLeavesNothingBehind) {
  const TemporaryFolder folder;
  write_file(folder / "bad.txt", "good\n\xC3\n");
  write_file(folder / "one.txt", "a single document");
  const auto before = folder.names();
  const auto error = [&](std::vector<std::string> words) {
    const Error caught = error_of([&] { run_tokenize(words); });
    EXPECT_EQ(folder.names(), before);
    return caught;
  };
  const std::string x = folder / "x", one = folder / "one.txt";
  EXPECT_SAYS(error({"--output", x, folder / "bad.txt"}),
              "bad.txt is not UTF-8 text: the byte at offset 5 is 195");
  EXPECT_EQ(error({"--output", x, folder / "bad.txt"}).fault(), Fault::data);
  EXPECT_EQ(error({"--output", x, folder / "none.txt"}).fault(), Fault::data);
  EXPECT_SAYS(error({"--output", x, "--held-out", "0.001", one}), "of 1 document, 1 would go to");
  EXPECT_SAYS(error({"--output", x, "--tokenizer", folder / "none.model", one}),
              "none.model cannot be opened");
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{one},
        {"--output", x},
        {"--outptu", x, one},
        {"--output", x, "--held-out", "1.5", one},
        {"--output", x, "--held-out", "many", one},
        {"--output", x, "--empty", "maybe", one},
        {"--output"},
        {"--output", x, "--output", x, one},
        {"--output", one + "/x", one},
        {"--output", x, "--split-long", "3", one},
        {"--output", x, "--vocab-size", "300", one},
        {"--output", x, "--held-out", "0.5", "--held-out-output", x, one}})
    EXPECT_EQ(error(words).fault(), Fault::request);
}

}  // namespace
}  // namespace conclave
