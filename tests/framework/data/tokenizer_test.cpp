// Tokenizers: text survives, specials stand for no text, foreign models fail with a sentence.
#include "framework/data/tokenizer.h"

#include "tests/framework/data/files_for_tests.h"

namespace conclave {
namespace {

/// Words of many kinds; enough of them that 320 pieces are there to be found.
std::string training_text() {
  const char* words[] = {"the", "mixture", "of", "experts", "learns", "from", "text", "12", "für", "学習"};
  const char* endings[] = {"", "s", "ing", "ed", "ly", "ness", "or", "able", "ism", "al", "ful"};
  std::string text;
  for (int line = 0; line < 400; ++line) {
    for (int word = 0; word < 9; ++word)
      text += std::string(words[(line * 7 + word * word) % 10]) +
              (word % 3 ? "" : endings[(line + word) % 11]) + " ";
    text += "\n";
  }
  return text;
}

TEST(Utf8, FindsTheFirstInvalidByte) {
  EXPECT_EQ(first_invalid_utf8("plain, é, 学, 😀"), std::string_view::npos);
  EXPECT_EQ(first_invalid_utf8(""), std::string_view::npos);
  EXPECT_EQ(first_invalid_utf8("ab\xFF"), 2u);
  EXPECT_EQ(first_invalid_utf8("a\x80"), 1u);             // a continuation without beginning
  EXPECT_EQ(first_invalid_utf8("a\xC3"), 1u);             // cut off
  EXPECT_EQ(first_invalid_utf8("\xC0\x80"), 0u);          // overlong
  EXPECT_EQ(first_invalid_utf8("\xE0\x9F\xBF"), 0u);      // overlong
  EXPECT_EQ(first_invalid_utf8("\xED\xA0\x80"), 0u);      // surrogate
  EXPECT_EQ(first_invalid_utf8("\xF4\x90\x80\x80"), 0u);  // above U+10FFFF
  EXPECT_EQ(first_invalid_utf8("\xF4\x8F\xBF\xBF"), std::string_view::npos);
  EXPECT_EQ(replace_invalid_utf8("a\xFFz\xC3"), "a\xEF\xBF\xBDz\xEF\xBF\xBD");
}

TEST(ByteTokenizer, RoundTripsEveryByte) {
  const auto tokenizer = load_tokenizer("bytes");
  std::string all;
  for (int value = 0; value < 256; ++value) all.push_back(static_cast<char>(value));
  const auto tokens = tokenizer->encode(all);
  ASSERT_EQ(tokens.size(), 256u);
  EXPECT_EQ(tokens[255], 255);
  EXPECT_EQ(tokenizer->decode(tokens), all);
  EXPECT_EQ(tokenizer->vocab_size(), 257);
  EXPECT_EQ(tokenizer->end_of_document(), 256);
  EXPECT_EQ(tokenizer->decode(std::vector<std::int32_t>{104, 256, 105, 300, -1}), "hi");
}

class SentencePiece : public testing::TestWithParam<const char*> {};

TEST_P(SentencePiece, TrainsAndRoundTrips) {
  const TemporaryFolder folder;
  write_file(folder / "text", training_text());
  train_sentencepiece({folder / "text"}, folder / "model", {.vocab_size = 320, .kind = GetParam()});
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"model.model", "text"}));

  const auto tokenizer = load_tokenizer(folder / "model.model");
  EXPECT_EQ(tokenizer->vocab_size(), 320);
  for (const std::string text :
       {"the experts learn", "  two  spaces \n\n\tand a tab\n", "unseen: ☃ ß 😀", "学習 für 12"}) {
    const auto tokens = tokenizer->encode(text);
    EXPECT_EQ(tokenizer->decode(tokens), text);
    for (const std::int32_t token : tokens) EXPECT_LT(token, tokenizer->vocab_size());
  }
  const std::string sentence = "the mixture of experts learns from text";
  EXPECT_LT(tokenizer->encode(sentence).size(), sentence.size() / 2);  // it learned words
  EXPECT_EQ(tokenizer->decode(std::vector<std::int32_t>{tokenizer->end_of_document(), 320, -5}), "");

  const std::string fingerprint = tokenizer_fingerprint(folder / "model.model");
  std::filesystem::rename(folder / "model.model", folder / "moved.model");
  EXPECT_EQ(tokenizer_fingerprint(folder / "moved.model"), fingerprint);
  EXPECT_NE(fingerprint, tokenizer_fingerprint("bytes"));
}
INSTANTIATE_TEST_SUITE_P(Kinds, SentencePiece, testing::Values("bpe", "unigram"));

TEST(SentencePieceErrors, MissingEmptyAndCorruptModels) {
  const TemporaryFolder folder;
  Error error = error_of([&] { load_tokenizer(folder / "none.model"); });
  EXPECT_EQ(error.fault(), Fault::data);
  EXPECT_SAYS(error, "none.model cannot be opened");

  write_file(folder / "empty.model", "");
  error = error_of([&] { load_tokenizer(folder / "empty.model"); });
  EXPECT_EQ(error.fault(), Fault::data);
  EXPECT_SAYS(error, "is empty");

  error = error_of([&] { load_tokenizer(folder.path()); });
  EXPECT_EQ(error.fault(), Fault::data);
  EXPECT_SAYS(error, "is a directory");

  write_file(folder / "text", training_text());
  error = error_of([&] { load_tokenizer(folder / "text"); });
  EXPECT_EQ(error.fault(), Fault::data);
  EXPECT_SAYS(error, "is not a SentencePiece model");

  train_sentencepiece({folder / "text"}, folder / "model", {.vocab_size = 320});
  const std::string model = read_file(folder / "model.model");
  write_file(folder / "cut.model", model.substr(0, model.size() / 2 + 1));
  error = error_of([&] { load_tokenizer(folder / "cut.model"); });
  EXPECT_EQ(error.fault(), Fault::data);
}

TEST(SentencePieceErrors, TrainingLeavesNothingBehind) {
  const TemporaryFolder folder;
  write_file(folder / "text", "too little text\n");
  Error error =
      error_of([&] { train_sentencepiece({folder / "text"}, folder / "model", {.vocab_size = 5000}); });
  EXPECT_EQ(error.fault(), Fault::data);
  EXPECT_SAYS(error, "5000 pieces");
  error = error_of([&] { train_sentencepiece({folder / "text"}, folder / "model", {.vocab_size = 100}); });
  EXPECT_EQ(error.fault(), Fault::request);
  error = error_of([&] { train_sentencepiece({folder / "text"}, folder / "model", {.kind = "word"}); });
  EXPECT_SAYS(error, "expected bpe or unigram");
  write_file(folder / "text", "good line\nbad \xFF line\n");  // fails while the library reads
  error = error_of([&] { train_sentencepiece({folder / "text"}, folder / "model", {}); });
  EXPECT_SAYS(error, "offset 14");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"text"});
}

}  // namespace
}  // namespace conclave
