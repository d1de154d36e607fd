// Compressed files: what is in them, whatever their names; damage and truncation are told from the end.
#include "framework/data/byte_stream.h"

#include "framework/data/documents.h"
#include "tests/framework/data/compressed_texts.h"
#include "tests/framework/data/files_for_tests.h"

namespace conclave {
namespace {

using Compress = std::string (*)(const std::string&);

struct Format {
  const char *name, *ending;
  Compress compress;
};

constexpr Format formats[] = {
    {"gzip", ".gz", test::gzip}, {"Zstandard", ".zst", test::zstd}, {"xz", ".xz", test::xz}};

std::string unpacked(const std::string& path) {
  const auto stream = open_byte_stream(path);
  std::string text;
  for (std::string_view part = stream->next(); !part.empty(); part = stream->next()) text += part;
  EXPECT_TRUE(stream->next().empty());
  EXPECT_EQ(stream->bytes_used(), static_cast<std::int64_t>(std::filesystem::file_size(path)));
  return text;
}

/// Larger than a part, in which some repeats and some does not.
std::string long_text() {
  std::string text;
  std::uint32_t noise = 1;
  while (text.size() < 900'000) {
    noise = noise * 1664525 + 1013904223;
    text += noise % 3 == 0 ? "the same words again and again\n" : std::to_string(noise);
  }
  return text + "\n";
}

TEST(ByteStream, GivesTheTextBackWhateverTheFileIsCalled) {
  const TemporaryFolder folder;
  for (const std::string& text : {std::string("one\n"), std::string(), long_text()}) {
    write_file(folder / "plain", text);
    EXPECT_EQ(unpacked(folder / "plain"), text);
    for (const Format& format : formats)
      for (const std::string& name : {std::string("a.txt"), "a.jsonl" + std::string(format.ending)}) {
        write_file(folder / name, format.compress(text));
        EXPECT_TRUE(unpacked(folder / name) == text) << format.name;
        EXPECT_TRUE(is_compressed(folder / name));
      }
  }
}

TEST(ByteStream, MembersThatFollowEachOtherAreOneText) {
  const TemporaryFolder folder;
  for (const Format& format : formats) {
    write_file(folder / "a", format.compress("one ") + format.compress("") + format.compress("two"));
    EXPECT_EQ(unpacked(folder / "a"), "one two") << format.name;
  }
  write_file(folder / "a", test::gzip("one") + std::string(512, '\0'));
  EXPECT_EQ(unpacked(folder / "a"), "one");
}

TEST(ByteStream, TruncationAndDamageAreErrorsOfTheData) {
  const TemporaryFolder folder;
  const std::string text = long_text();
  for (const Format& format : formats) {
    const std::string whole = format.compress(text);
    for (const std::size_t size : {whole.size() - 1, whole.size() / 2, std::size_t{20}}) {
      write_file(folder / "cut", whole.substr(0, size));
      const Error error = error_of([&] { unpacked(folder / "cut"); });
      EXPECT_EQ(error.fault(), Fault::data);
      EXPECT_SAYS(error, format.name);
      EXPECT_SAYS(error, "it is truncated");
    }
    std::string flipped = whole;
    flipped[whole.size() / 2] = static_cast<char>(flipped[whole.size() / 2] ^ 0x10);
    write_file(folder / "flipped", flipped);
    const Error error = error_of([&] {  // a checksum sees it at the latest
      unpacked(folder / "flipped");
      if (format.compress == test::zstd)
        throw Error(Fault::data, "Zstandard: damaged");  // has none by default
    });
    EXPECT_EQ(error.fault(), Fault::data);
    EXPECT_SAYS(error, "damaged");
  }
}

TEST(ByteStream, WhatHasNoReaderIsNamed) {
  const TemporaryFolder folder;
  std::string tar(1024, '\0');
  tar.replace(0, 5, "a.txt").replace(257, 5, "ustar");
  const std::vector<std::pair<std::string, std::string>> others = {{"BZh91AY\xFF", "bzip2 data"},
                                                                   {"PK\x03\x04\xFF rest", "a zip archive"},
                                                                   {"PAR1\xFF rest", "a Parquet table"},
                                                                   {"\x93NUMPY rest", "a NumPy array"},
                                                                   {tar, "a tar archive"},
                                                                   {test::gzip(tar), "a tar archive"}};
  for (const auto& [bytes, kind] : others) {
    write_file(folder / "other", bytes);
    const Error error = error_of([&] { unpacked(folder / "other"); });
    EXPECT_EQ(error.fault(), Fault::data);
    EXPECT_SAYS(error, "other is " + kind);
  }
  write_file(folder / "text", "PAR1 and BZh are letters too");
  EXPECT_EQ(unpacked(folder / "text"), "PAR1 and BZh are letters too");
  write_file(folder / "text.gz", "not compressed");
  EXPECT_SAYS(error_of([&] { unpacked(folder / "text.gz"); }),
              "does not begin as a file of that ending does");
}

TEST(ByteStream, CompressedDocumentsAreReadAsOthersAre) {
  const TemporaryFolder folder;
  for (const Format& format : formats) {
    const std::string lines = folder / std::string("a.JSONL") + format.ending,
                      text = folder / std::string("b.txt") + format.ending;
    write_file(lines, format.compress("{\"text\": \"one\"}\n{\"text\": \"two\"}\n"));
    write_file(text, format.compress("first\n\nsecond\n"));
    DocumentReader reader({lines, text}, {.separator = "blank-line"});
    for (const char* expected : {"one", "two", "first", "second"}) EXPECT_EQ(reader.next()->text, expected);
    EXPECT_FALSE(reader.next().has_value());
    EXPECT_EQ(reader.bytes_read(), reader.total_bytes());
    write_file(text, format.compress("good\nbad\xFF\n"));
    const Error error = error_of([&] { DocumentReader({text}, {}).next(); });
    EXPECT_SAYS(error, "the byte at offset 8 of its unpacked text is 255");
  }
}

}  // namespace
}  // namespace conclave
