// Reader and writer of the indexed format. Every value of a foreign file is checked before use.
#include "framework/data/token_file.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>

#include "framework/base/error.h"
#include "framework/data/file_kind.h"

namespace conclave {
namespace {

static_assert(std::endian::native == std::endian::little,
              "token files are little-endian and read without swapping");

constexpr char magic[] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};
constexpr std::size_t header_bytes = 34;
constexpr std::int64_t narrow_vocabulary = 65500;
enum Code : std::uint8_t {
  uint8_code = 1,
  int8_code = 2,
  int16_code = 3,
  int32_code = 4,
  int64_code = 5,
  uint16_code = 8
};

/// The arrays of an index are misaligned, so values are copied out.
template <class Value>
Value value_at(std::string_view bytes, std::size_t offset) {
  Value value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

/// Bytes of one token; 0: not an integer type that the format knows.
int width_of(int code) {
  switch (code) {
    case uint8_code:
    case int8_code:
      return 1;
    case int16_code:
    case uint16_code:
      return 2;
    case int32_code:
      return 4;
    case int64_code:
      return 8;
    default:
      return 0;
  }
}

/// Calls `visit` with a zero of the integer type that a code of the format names.
template <class Visit>
std::int64_t with_type(int code, const Visit& visit) {
  switch (code) {
    case uint8_code:
      return visit(std::uint8_t{});
    case int8_code:
      return visit(std::int8_t{});
    case int16_code:
      return visit(std::int16_t{});
    case int32_code:
      return visit(std::int32_t{});
    case int64_code:
      return visit(std::int64_t{});
    default:
      return visit(std::uint16_t{});
  }
}

template <class Stored>
Stored token_at(const char* from, std::int64_t index) {
  Stored token;
  std::memcpy(&token, from + static_cast<std::size_t>(index) * sizeof token, sizeof token);
  return token;
}

/// The index of the first token outside 0 .. vocabulary-1, or -1. Smallest and largest id of a block first,
/// which is a loop of vector instructions as fast as memory.
template <class Stored>
std::int64_t first_outside(const char* from, std::int64_t count, std::int64_t vocabulary) {
  constexpr std::int64_t block = 1 << 16;
  for (std::int64_t begin = 0; begin < count; begin += block) {
    const std::int64_t end = std::min(count, begin + block);
    Stored least = 0, most = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      const Stored token = token_at<Stored>(from, i);
      least = std::min(least, token);
      most = std::max(most, token);
    }
    if (static_cast<std::int64_t>(least) >= 0 && static_cast<std::int64_t>(most) < vocabulary) continue;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t token = token_at<Stored>(from, i);
      if (token < 0 || token >= vocabulary) return i;
    }
  }
  return -1;
}

}  // namespace

std::string checksum_of_index(std::string_view index) {
  std::array<char, 17> text{};
  std::snprintf(text.data(), text.size(), "%016llx",
                static_cast<unsigned long long>(XXH3_64bits(index.data(), index.size())));
  return text.data();
}

TokenFile::TokenFile(std::string prefix, std::int64_t vocabulary)
    : prefix_(std::move(prefix)), vocabulary_(vocabulary) {
  check(vocabulary_ > 0 && vocabulary_ <= std::numeric_limits<std::int32_t>::max(), Fault::request,
        "a vocabulary of ", vocabulary_, " came for the token file ", prefix_, ", expected 1 to 2147483647");
  std::error_code code;
  if (!std::filesystem::exists(prefix_ + ".idx", code)) refuse_foreign_tokens(prefix_);
  const MappedFile index(prefix_ + ".idx", "token index");
  bin_ = RandomFile(prefix_ + ".bin", "token data");
  read_index(index.bytes());
  index_checksum_ = checksum_of_index(index.bytes());
}

void TokenFile::read_index(std::string_view index) {
  const std::string name = "token index " + prefix_ + ".idx";
  check(index.size() >= header_bytes, Fault::data, name, " holds ", index.size(),
        " bytes; its header alone takes ", header_bytes, ", so it is truncated or no token index");
  check(std::memcmp(index.data(), magic, sizeof magic) == 0, Fault::data, name,
        " does not begin with MMIDIDX; a Megatron token index is expected (`conclave tokenize` makes one)");
  const auto version = value_at<std::uint64_t>(index, 9);
  check(version == 1, Fault::data, name, " has version ", version, ", expected 1");
  code_ = value_at<std::uint8_t>(index, 17);
  const int width = width_of(code_);
  check(width > 0, Fault::data, name, " has token type code ", code_,
        ", expected 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64 or 8 uint16");

  // Each count is bounded by the bytes that are there before it is multiplied.
  const auto sequences = value_at<std::uint64_t>(index, 18), boundaries = value_at<std::uint64_t>(index, 26);
  const std::uint64_t rest = index.size() - header_bytes;
  const bool plausible = sequences <= rest / 12 && boundaries <= rest / 8;
  const std::uint64_t arrays = plausible ? 12 * sequences + 8 * boundaries : 0;
  // One mode byte per sequence may follow, in multimodal files; it says nothing about tokens.
  check(plausible && (rest == arrays || rest == arrays + sequences), Fault::data, name, " announces ",
        sequences, " sequences and ", boundaries, " document boundaries, which does not agree with its ",
        index.size(), " bytes; it is truncated or damaged");
  check(boundaries >= 1, Fault::data, name, " has no document boundary, expected at least the last one");

  // Only a .bin that the sequences fill without gap, overlap or rest makes a stream; Megatron writes such.
  const auto bin_bytes = static_cast<std::uint64_t>(bin_.size());
  const std::uint64_t bin_tokens = bin_bytes / static_cast<std::uint64_t>(width);
  const std::size_t lengths = header_bytes, pointers = lengths + 4 * sequences,
                    documents = pointers + 8 * sequences;
  document_begin_.reserve(boundaries);
  std::uint64_t begin = 0, boundary = 0;
  const auto take_boundaries = [&](std::uint64_t sequence) {
    for (; boundary < boundaries; ++boundary) {
      const auto first = value_at<std::int64_t>(index, documents + 8 * boundary);
      const auto expected = static_cast<std::int64_t>(sequence);
      const bool before = boundary == 0 ? first != 0 : first < expected;
      check(!before && first <= static_cast<std::int64_t>(sequences), Fault::data, name,
            ": document boundary ", boundary, " is sequence ", first, "; boundaries must ascend from 0 to ",
            sequences);
      if (first != expected) return;
      document_begin_.push_back(static_cast<std::int64_t>(begin));
    }
  };
  for (std::uint64_t sequence = 0; sequence < sequences; ++sequence) {
    take_boundaries(sequence);
    const auto length = value_at<std::int32_t>(index, lengths + 4 * sequence);
    const auto pointer = value_at<std::int64_t>(index, pointers + 8 * sequence);
    check(length >= 0, Fault::data, name, ": sequence ", sequence, " has length ", length,
          ", expected 0 or more");
    check(pointer == static_cast<std::int64_t>(begin * static_cast<std::uint64_t>(width)), Fault::data, name,
          ": sequence ", sequence, " points to byte ", pointer, " of ", prefix_, ".bin, expected ",
          begin * static_cast<std::uint64_t>(width),
          "; Conclave reads files whose sequences follow each other ",
          "without gaps, as Megatron writes them");
    begin += static_cast<std::uint64_t>(length);
    check(begin <= bin_tokens, Fault::data, "token data ", prefix_, ".bin holds ", bin_bytes,
          " bytes, but sequence ", sequence, " of its index ends at byte ",
          begin * static_cast<std::uint64_t>(width), "; the file is truncated or belongs to another index");
  }
  take_boundaries(sequences);
  check(boundary == boundaries && begin == bin_tokens && bin_bytes % static_cast<std::size_t>(width) == 0,
        Fault::data, "token data ", prefix_, ".bin holds ", bin_bytes, " bytes, but its index describes ",
        begin * static_cast<std::uint64_t>(width), "; the two files do not belong together");
  const auto last = value_at<std::int64_t>(index, documents + 8 * (boundaries - 1));
  check(last == static_cast<std::int64_t>(sequences) && document_begin_.front() == 0, Fault::data, name,
        ": the last document boundary is sequence ", last, ", expected ", sequences,
        ", the number of sequences");
  check(begin > 0, Fault::data, "the token file ", prefix_,
        ".bin holds no tokens; at least one document is expected");
}

std::int64_t TokenFile::document_of(std::int64_t offset) const {
  check(offset >= 0 && offset < tokens(), "TokenFile: offset ", offset, " came, expected 0 to ",
        tokens() - 1);
  // The last boundary at or before the offset: empty documents, which share it, come earlier.
  const auto after = std::upper_bound(document_begin_.begin(), document_begin_.end(), offset);
  return after - document_begin_.begin() - 1;
}

void TokenFile::read(std::int64_t begin, std::int64_t count, std::int32_t* out) const {
  check(begin >= 0 && count >= 0 && begin <= tokens() && count <= tokens() - begin, "TokenFile: tokens ",
        begin, " to ", begin, " + ", count, " were asked for, ", tokens(), " are there");
  read_blocks(begin, count, [&](const char* from, std::int64_t first, std::int64_t tokens) {
    std::int32_t* to = out + (first - begin);
    with_type(code_, [&](auto zero) {
      for (std::int64_t i = 0; i < tokens; ++i)
        to[i] = static_cast<std::int32_t>(token_at<decltype(zero)>(from, i));
      return tokens;
    });
  });
}

void TokenFile::check_all_ids() const {
  read_blocks(0, tokens(), [](const char*, std::int64_t, std::int64_t) {});
}

template <class Visit>
void TokenFile::read_blocks(std::int64_t begin, std::int64_t count, const Visit& visit) const {
  constexpr std::int64_t most = 1 << 18;
  const std::int64_t width = width_of(code_);
  std::vector<char> bytes(static_cast<std::size_t>(std::min(count, most) * width));
  for (std::int64_t first = begin; first < begin + count; first += most) {
    const std::int64_t tokens = std::min(most, begin + count - first);
    bin_.read(first * width, tokens * width, bytes.data());
    check_ids(bytes.data(), first, tokens);
    visit(bytes.data(), first, tokens);
  }
}

void TokenFile::check_ids(const char* from, std::int64_t begin, std::int64_t count) const {
  const std::int64_t bad =
      with_type(code_, [&](auto zero) { return first_outside<decltype(zero)>(from, count, vocabulary_); });
  if (bad < 0) return;
  const std::int64_t id =
      with_type(code_, [&](auto zero) { return std::int64_t{token_at<decltype(zero)>(from, bad)}; });
  fail(Fault::data, "token data ", prefix_, ".bin: token ", begin + bad, " is id ", id, ", expected 0 to ",
       vocabulary_ - 1, "; the vocabulary has ", vocabulary_,
       " entries (model.vocab_size), so the file was made with another tokenizer or is damaged");
}

TokenFileWriter::TokenFileWriter(std::string prefix, std::int64_t vocabulary)
    : prefix_(std::move(prefix)),
      vocabulary_(vocabulary),
      bin_(prefix_ + ".bin"),
      idx_(prefix_ + ".idx"),
      json_(prefix_ + ".json") {
  check(vocabulary_ > 0 && vocabulary_ <= std::numeric_limits<std::int32_t>::max(),
        "TokenFileWriter: a vocabulary of ", vocabulary_, " came, expected 1 to 2147483647");
}

void TokenFileWriter::append_document(std::span<const std::int32_t> tokens) {
  check(tokens.size() <= static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()), Fault::data,
        "document ", documents(), " has ", tokens.size(),
        " tokens, which a token index cannot hold; split it (--split-long)");
  std::int32_t least = 0, most = 0;
  for (const std::int32_t token : tokens) {
    least = std::min(least, token);
    most = std::max(most, token);
  }
  check(least >= 0 && most < vocabulary_, "TokenFileWriter: document ", documents(), " has token id ",
        least < 0 ? least : most, ", expected 0 to ", vocabulary_ - 1);
  if (vocabulary_ < narrow_vocabulary) {
    narrow_.assign(tokens.begin(), tokens.end());
    bin_.write(narrow_.data(), narrow_.size() * sizeof(std::uint16_t));
  } else {
    bin_.write(tokens.data(), tokens.size_bytes());
  }
  lengths_.push_back(static_cast<std::int32_t>(tokens.size()));
  tokens_ += static_cast<std::int64_t>(tokens.size());
}

void TokenFileWriter::finish(TokenDescription description) {
  description.documents = documents();
  description.tokens = tokens();
  const std::string text = to_json(description);
  json_.write(text.data(), text.size());

  const bool narrow = vocabulary_ < narrow_vocabulary;
  const auto sequences = static_cast<std::uint64_t>(documents());
  idx_.write(magic, sizeof magic);
  idx_.put<std::uint64_t>(1);
  idx_.put<std::uint8_t>(narrow ? uint16_code : int32_code);
  idx_.put<std::uint64_t>(sequences);
  idx_.put<std::uint64_t>(sequences + 1);
  idx_.write(lengths_.data(), lengths_.size() * sizeof(std::int32_t));
  std::int64_t pointer = 0;
  for (const std::int32_t length : lengths_) {
    idx_.put(pointer);
    pointer += std::int64_t{length} * (narrow ? 2 : 4);
  }
  for (std::uint64_t document = 0; document <= sequences; ++document)
    idx_.put(static_cast<std::int64_t>(document));

  bin_.close();
  json_.close();
  idx_.close();
  // An index of earlier files must never describe the new data, not even for a moment.
  std::error_code ignored;
  std::filesystem::remove(prefix_ + ".idx", ignored);
  bin_.publish();
  json_.publish();
  idx_.publish();
}

}  // namespace conclave
