// Token files: the layout byte by byte as Megatron writes it, foreign types and shapes of documents, and
// damage of every kind, which must end in an Error that names the file and never in a read outside of it.
#include "framework/data/token_file.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "tests/framework/data/files_for_tests.h"

namespace conclave {
namespace {

template <class Value>
void put(std::string& bytes, Value value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

/// An index as formats.md describes it, from any values, right or wrong.
std::string index_bytes(std::uint8_t code, const std::vector<std::int32_t>& lengths,
                        const std::vector<std::int64_t>& pointers,
                        const std::vector<std::int64_t>& documents) {
  std::string bytes("MMIDIDX\0\0", 9);
  put<std::uint64_t>(bytes, 1);
  put(bytes, code);
  put<std::uint64_t>(bytes, lengths.size());
  put<std::uint64_t>(bytes, documents.size());
  for (const auto length : lengths) put(bytes, length);
  for (const auto pointer : pointers) put(bytes, pointer);
  for (const auto document : documents) put(bytes, document);
  return bytes;
}

template <class Stored>
std::string bin_bytes(const std::vector<Stored>& tokens) {
  std::string bytes;
  for (const auto token : tokens) put(bytes, token);
  return bytes;
}

std::vector<std::int32_t> all_tokens(const TokenFile& file) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.tokens()));
  file.read(0, file.tokens(), tokens.data());
  return tokens;
}

Error open_error(const std::string& prefix) {
  const Error error = error_of([&] { all_tokens(TokenFile(prefix, 257)); });
  EXPECT_EQ(error.fault(), Fault::data) << error.what();
  EXPECT_SAYS(error, prefix);
  return error;
}

TEST(TokenFile, WriterLaysBytesOutAsMegatron) {
  const TemporaryFolder folder;
  write_tokens(folder / "t", {{104, 105, 256}, {120, 256}});
  const unsigned char expected[] = {
      'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0,                       // magic
      1,   0,   0,   0,   0,   0,   0,   0,                          // version
      8,                                                             // uint16
      2,   0,   0,   0,   0,   0,   0,   0, 3, 0, 0, 0, 0, 0, 0, 0,  // sequences, document boundaries
      3,   0,   0,   0,   2,   0,   0,   0,                          // lengths
      0,   0,   0,   0,   0,   0,   0,   0, 6, 0, 0, 0, 0, 0, 0, 0,  // pointers in bytes
      0,   0,   0,   0,   0,   0,   0,   0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0};
  EXPECT_EQ(read_file(folder / "t.idx"),
            std::string(reinterpret_cast<const char*>(expected), sizeof expected));
  EXPECT_EQ(read_file(folder / "t.bin"), std::string("h\0i\0\0\1x\0\0\1", 10));
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"t.bin", "t.idx", "t.json"}));

  write_tokens(folder / "wide", {{65499}}, 65500);
  EXPECT_EQ(read_file(folder / "wide.bin"), std::string("\xDB\xFF\0\0", 4));
  EXPECT_EQ(read_file(folder / "wide.idx")[17], 4);
}

TEST(TokenFile, ReadsBackDocumentsAndPositions) {
  const TemporaryFolder folder;
  write_tokens(folder / "t", {{1, 2, 3}, {4}, {5, 6}});
  const TokenFile file(folder / "t", 257);
  EXPECT_EQ(file.tokens(), 6);
  EXPECT_EQ(file.documents(), 3);
  EXPECT_EQ(all_tokens(file), (std::vector<std::int32_t>{1, 2, 3, 4, 5, 6}));
  const std::vector<std::int64_t> expected = {0, 0, 0, 1, 2, 2};
  for (std::int64_t offset = 0; offset < 6; ++offset)
    EXPECT_EQ(file.document_of(offset), expected[static_cast<std::size_t>(offset)]);
  EXPECT_EQ(file.document_begin(2), 4);
  EXPECT_EQ(file.document_begin(3), 6);
  std::int32_t two[2];
  file.read(2, 2, two);
  EXPECT_EQ(two[0], 3);
  EXPECT_EQ(two[1], 4);
  EXPECT_EQ(error_of([&] { file.read(5, 2, two); }).fault(), Fault::internal);
  EXPECT_EQ(error_of([&] { file.read(-1, 1, two); }).fault(), Fault::internal);
}

TEST(TokenFile, HonoursDocumentsOfSeveralSequencesAndEmptyOnes) {
  const TemporaryFolder folder;
  // Documents: sequences 0 and 1, none, sequence 2 which is empty, sequence 3.
  write_file(folder / "t.idx", index_bytes(4, {2, 1, 0, 3}, {0, 8, 12, 12}, {0, 2, 2, 3, 4}));
  write_file(folder / "t.bin", bin_bytes<std::int32_t>({1, 2, 3, 4, 5, 6}));
  const TokenFile file(folder / "t", 257);
  EXPECT_EQ(file.documents(), 4);
  EXPECT_EQ(file.document_begin(1), 3);
  EXPECT_EQ(file.document_begin(3), 3);
  EXPECT_EQ(file.document_of(2), 0);
  EXPECT_EQ(file.document_of(3), 3);  // not one of the empty documents at the same place
}

TEST(TokenFile, ReadsEveryIntegerTypeAndModes) {
  const TemporaryFolder folder;
  const std::vector<std::pair<std::uint8_t, std::string>> types = {
      {1, bin_bytes<std::uint8_t>({7, 100})}, {2, bin_bytes<std::int8_t>({7, 100})},
      {3, bin_bytes<std::int16_t>({7, 100})}, {4, bin_bytes<std::int32_t>({7, 100})},
      {5, bin_bytes<std::int64_t>({7, 100})}, {8, bin_bytes<std::uint16_t>({7, 100})}};
  for (const auto& [code, bin] : types) {
    write_file(folder / "t.idx",
               index_bytes(code, {2}, {0}, {0, 1}) + std::string(code % 2, '\0'));  // some with modes
    write_file(folder / "t.bin", bin);
    EXPECT_EQ(all_tokens(TokenFile(folder / "t", 101)), (std::vector<std::int32_t>{7, 100}));
    EXPECT_SAYS(error_of([&] { all_tokens(TokenFile(folder / "t", 100)); }),
                "token 1 is id 100, expected 0 to 99");
  }
  write_file(folder / "t.idx", index_bytes(3, {2}, {0}, {0, 1}));
  write_file(folder / "t.bin", bin_bytes<std::int16_t>({7, -2}));
  EXPECT_SAYS(open_error(folder / "t"), "token 1 is id -2");
  write_file(folder / "t.idx", index_bytes(5, {1}, {0}, {0, 1}));
  write_file(folder / "t.bin", bin_bytes<std::int64_t>({(std::int64_t{1} << 40) + 3}));
  EXPECT_SAYS(open_error(folder / "t"), "id 1099511627779");
  for (const std::uint8_t code : {0, 6, 7, 9, 255}) {
    write_file(folder / "t.idx", index_bytes(code, {1}, {0}, {0, 1}));
    EXPECT_SAYS(open_error(folder / "t"), "token type code " + std::to_string(code));
  }
}

TEST(TokenFile, AllIdsAreCheckedAtOnce) {
  const TemporaryFolder folder;
  const std::int64_t count = 200000;  // several blocks of the scan and a rest
  const auto write = [&]<class Stored>(std::uint8_t code, std::vector<Stored> tokens) {
    write_file(folder / "t.idx", index_bytes(code, {static_cast<std::int32_t>(tokens.size())}, {0}, {0, 1}));
    write_file(folder / "t.bin", bin_bytes(tokens));
  };
  const auto try_everywhere = [&](std::uint8_t code, auto good, auto bad, const std::string& id) {
    for (const std::int64_t at : {std::int64_t{0}, std::int64_t{65535}, std::int64_t{65536}, count - 1}) {
      std::vector<decltype(good)> tokens(static_cast<std::size_t>(count), good);
      write(code, tokens);
      TokenFile(folder / "t", 101).check_all_ids();
      tokens[static_cast<std::size_t>(at)] = bad;
      write(code, tokens);
      EXPECT_SAYS(error_of([&] { TokenFile(folder / "t", 101).check_all_ids(); }),
                  "t.bin: token " + std::to_string(at) + " is id " + id + ", expected 0 to 100");
    }
  };
  try_everywhere(8, std::uint16_t{100}, std::uint16_t{65535}, "65535");
  try_everywhere(1, std::uint8_t{100}, std::uint8_t{101}, "101");
  try_everywhere(2, std::int8_t{100}, std::int8_t{-1}, "-1");
  try_everywhere(4, std::int32_t{100}, std::int32_t{-7}, "-7");
  try_everywhere(5, std::int64_t{100}, std::int64_t{1} << 33, "8589934592");
}

TEST(TokenFile, TruncationAtEveryLengthIsAnError) {
  const TemporaryFolder folder;
  write_tokens(folder / "t", {{1, 2, 3}, {4, 5}});
  for (const char* ending : {".idx", ".bin"}) {
    const std::string whole = read_file(folder / "t" + ending);
    for (std::size_t length = 0; length < whole.size(); ++length) {
      write_file(folder / "t" + ending, whole.substr(0, length));
      open_error(folder / "t");
    }
    write_file(folder / "t" + ending,
               whole + std::string(3, '\0'));  // three modes for two sequences; odd bytes
    open_error(folder / "t");
    write_file(folder / "t" + ending, whole);
  }
  EXPECT_EQ(TokenFile(folder / "t", 257).tokens(), 5);
}

TEST(TokenFile, EveryBitOfTheIndexIsChecked) {
  const TemporaryFolder folder;
  write_tokens(folder / "t", {{1, 2, 3}, {4, 5}});
  const std::string whole = read_file(folder / "t.idx");
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    write_file(folder / "t.idx", damaged);
    if (bit / 8 == 66 &&
        bit % 8 == 0) {  // boundaries 0, 1, 2 become 0, 0, 2: a valid index with an empty document
      EXPECT_EQ(TokenFile(folder / "t", 257).document_begin(1), 0);
      continue;
    }
    open_error(folder / "t");  // nothing else in this index may change and still describe this .bin
  }
}

TEST(TokenFile, HugeAndNegativeNumbersDoNotOverflow) {
  const TemporaryFolder folder;
  write_tokens(folder / "t", {{1, 2, 3}, {4, 5}});
  const std::string whole = read_file(folder / "t.idx");
  for (std::size_t field = 18; field + 8 <= whole.size(); ++field)
    for (const std::uint64_t value :
         {~0ull, 1ull << 63, (1ull << 63) - 1, ~0ull / 12 + 1, ~0ull / 8 + 1, 1ull << 61}) {
      std::string damaged = whole;
      std::memcpy(damaged.data() + field, &value, sizeof value);
      write_file(folder / "t.idx", damaged);
      open_error(folder / "t");
    }
}

TEST(TokenFile, SentencesSayWhatIsWrong) {
  const TemporaryFolder folder;
  const std::string prefix = folder / "t";
  EXPECT_SAYS(open_error(prefix), "t.idx cannot be opened");
  write_file(prefix + ".idx", index_bytes(8, {2, 1}, {0, 4}, {0, 1, 2}));
  EXPECT_SAYS(open_error(prefix), "t.bin cannot be opened");
  write_file(prefix + ".bin", bin_bytes<std::uint16_t>({1, 2, 3}));
  EXPECT_EQ(TokenFile(prefix, 257).documents(), 2);

  const auto with_index = [&](const std::string& bytes) {
    write_file(prefix + ".idx", bytes);
    return open_error(prefix);
  };
  EXPECT_SAYS(with_index("PK" + std::string(60, 'x')), "does not begin with MMIDIDX");
  EXPECT_SAYS(with_index(index_bytes(8, {2, -1}, {0, 4}, {0, 1, 2})), "sequence 1 has length -1");
  EXPECT_SAYS(with_index(index_bytes(8, {2, 1}, {0, 2}, {0, 1, 2})), "sequence 1 points to byte 2");
  EXPECT_SAYS(with_index(index_bytes(8, {1, 2}, {4, 0}, {0, 1, 2})), "follow each other without gaps");
  EXPECT_SAYS(with_index(index_bytes(8, {2, 2}, {0, 4}, {0, 1, 2})), "ends at byte 8");
  EXPECT_SAYS(with_index(index_bytes(8, {2}, {0}, {0, 1})), "its index describes 4");
  EXPECT_SAYS(with_index(index_bytes(8, {2, 1}, {0, 4}, {1, 2})), "boundary 0 is sequence 1");
  EXPECT_SAYS(with_index(index_bytes(8, {2, 1}, {0, 4}, {0, 2, 1})), "must ascend from 0 to 2");
  EXPECT_SAYS(with_index(index_bytes(8, {2, 1}, {0, 4}, {0, 1})),
              "last document boundary is sequence 1, expected 2");
  EXPECT_SAYS(with_index(index_bytes(8, {2, 1}, {0, 4}, {})), "no document boundary");
  write_file(prefix + ".bin", "");
  EXPECT_SAYS(with_index(index_bytes(8, {}, {}, {0})), "holds no tokens");
  std::filesystem::create_directory(folder / "folder.idx");
  EXPECT_SAYS(open_error(folder / "folder"), "is a directory");
}

TEST(TokenFileWriter, LeavesNothingBehindUnlessFinished) {
  const TemporaryFolder folder;
  {
    TokenFileWriter writer(folder / "t", 257);
    writer.append_document(std::vector<std::int32_t>(3 << 20, 7));  // more than a buffer: on the disk already
    EXPECT_EQ(folder.names().size(), 3u);
  }
  EXPECT_TRUE(folder.names().empty());

  write_tokens(folder / "t", {{1}});
  const std::string before = read_file(folder / "t.bin");
  error_of([&] { write_tokens(folder / "t", {{2}, {257}}); });
  EXPECT_EQ(read_file(folder / "t.bin"), before);
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"t.bin", "t.idx", "t.json"}));
}

TEST(TokenFileWriter, AnUnwritablePlaceIsASentence) {
  const TemporaryFolder folder;
  write_file(folder / "file", "x");
  const Error error = error_of([&] { TokenFileWriter(folder / "file/t", 257); });
  EXPECT_EQ(error.fault(), Fault::request);
  EXPECT_SAYS(error, "file");
  std::filesystem::create_directory(folder / "t.bin");
  EXPECT_SAYS(error_of([&] { TokenFileWriter(folder / "t", 257); }), "t.bin is a directory");
}

TEST(TokenFile, WhatStandsInItsPlaceIsNamed) {
  const TemporaryFolder folder;
  std::string llm_c(2048, '\x01');
  const std::uint32_t magic = 20240520;
  std::memcpy(llm_c.data(), &magic, sizeof magic);
  const std::string ids("\x50\xC3\x00\x12\xFF\xFE", 6);
  struct Case {
    std::string name, bytes, sentence;
    const char* path;  // as the recipe says it
  };
  const std::vector<Case> cases = {
      {"a.bin", llm_c, "a.bin is a token file of llm.c; a pair of token files PREFIX.bin and PREFIX.idx",
       "a.bin"},
      {"b.bin", ids, "b.bin is a row of bare token ids without an index, as nanoGPT writes them", "b.bin"},
      {"c.bin", ids, "c.bin is a row of bare token ids without an index", "c"},
      {"d.ds", ids, "d.ds is a token file of datatrove (.ds)", "d.ds"},
      {"e.npy", "\x93NUMPY\x01", "e.npy is a NumPy array", "e"},
      {"f.jsonl", "{\"text\": \"one\"}\n", "f.jsonl is text; ", "f.jsonl"},
      {"g.jsonl", "{\"text\": \"one\"}\n",
       "`conclave tokenize --output PREFIX " + folder.path() + "/g.jsonl`", "g"},
      {"h.jsonl.gz", "\x1F\x8B\x08", "h.jsonl.gz is a compressed file", "h.jsonl.gz"},
      {"i.bin", "", "i.bin is a row of bare token ids", "i"},
      {"j.parquet", std::string("PAR1\x15\0", 6), "j.parquet is a Parquet table", "j"},
      {"k.arrow", std::string("ARROW1\0\0", 8), "k.arrow is an Arrow table", "k"},
      {"l.txt.xz",
       "\xFD"
       "7zXZ",
       "l.txt.xz is a compressed file", "l"},
      {"m.jsonl.bz2", "BZh9\xFF", "m.jsonl.bz2 is bzip2 data", "m"},
      {"n.csv", "id,text\n", "n.csv is text", "n"}};
  for (const Case& one : cases) {
    write_file(folder / one.name, one.bytes);
    const Error error = error_of([&] { TokenFile(folder / one.path, 257); });
    EXPECT_EQ(error.fault(), Fault::data);
    EXPECT_SAYS(error, one.sentence);
  }
  write_tokens(folder / "own", {{1, 2, 256}});
  for (const std::string ending : {".bin", ".idx", ".json"}) {
    const Error error = error_of([&] { TokenFile(folder / "own" + ending, 257); });
    EXPECT_EQ(error.fault(), Fault::request);
    EXPECT_SAYS(error, "was given with its ending; leave it out: " + folder.path() + "/own stands for");
  }
  EXPECT_SAYS(error_of([&] { TokenFile(folder.path(), 257); }), "is a folder");
  EXPECT_SAYS(error_of([&] { TokenFile(folder / "none", 257); }), "none.idx cannot be opened");
}

TEST(TokenFile, AFileThatIsCutShortWhileItIsReadIsASentence) {
  const TemporaryFolder folder;
  TokenFileWriter writer(folder / "text", 1000);
  const std::vector<std::int32_t> tokens(100'000, 7);
  for (int document = 0; document < 8; ++document) writer.append_document(tokens);
  writer.finish({});
  const TokenFile file(folder / "text", 1000);
  std::vector<std::int32_t> read(800'000);
  file.read(0, 800'000, read.data());  // in several blocks
  EXPECT_EQ(std::count(read.begin(), read.end(), 7), 800'000);
  EXPECT_NO_THROW(file.check_all_ids());
  std::filesystem::resize_file(folder / "text.bin", 1'000'001);
  EXPECT_NO_THROW(file.read(0, 500'000, read.data()));
  for (const bool all : {false, true}) {
    try {
      all ? file.check_all_ids() : file.read(499'990, 20, read.data());
      ADD_FAILURE() << "what is not there was read";
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::data);
      EXPECT_NE(std::string(error.what()).find("ends at byte 1000001 now, but had 1600000"),
                std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace conclave
