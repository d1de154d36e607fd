// Token files in Megatron's indexed format, PREFIX.bin and PREFIX.idx (see docs/ and Megatron-LM's
// IndexedDataset). The reader trusts no byte of them: every count, offset and token id is checked before it
// is used. The writer puts one document in one sequence, and its files appear complete or not at all.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "framework/data/files.h"
#include "framework/data/random_file.h"
#include "framework/data/token_description.h"

namespace conclave {

/// XXH3 of the bytes of a PREFIX.idx, as 16 hexadecimal digits.
std::string checksum_of_index(std::string_view index);

/// All documents of a prefix as one stream of tokens, read from the disk when they are asked for.
class TokenFile {
 public:
  /// Ids must be below `vocabulary`; each is checked when it is read, all at once by check_all_ids.
  TokenFile(std::string prefix, std::int64_t vocabulary);

  const std::string& prefix() const { return prefix_; }
  std::int64_t tokens() const { return document_begin_.back(); }
  std::int64_t documents() const { return static_cast<std::int64_t>(document_begin_.size()) - 1; }
  /// XXH3 of the index, by which the text is known wherever its files lie.
  const std::string& index_checksum() const { return index_checksum_; }
  /// Where a document begins in the stream; document_begin(documents()) is the stream's end.
  std::int64_t document_begin(std::int64_t document) const {
    return document_begin_[static_cast<std::size_t>(document)];
  }
  /// The document that the token at `offset` belongs to.
  std::int64_t document_of(std::int64_t offset) const;
  void read(std::int64_t begin, std::int64_t count, std::int32_t* out) const;
  /// Goes through the whole file once, as fast as it can be read.
  void check_all_ids() const;

 private:
  /// Calls visit(bytes, first token, tokens) with one block after another, each of checked ids.
  template <class Visit>
  void read_blocks(std::int64_t begin, std::int64_t count, const Visit& visit) const;
  void check_ids(const char* from, std::int64_t begin, std::int64_t count) const;
  void read_index(std::string_view index);
  std::string prefix_;
  std::int64_t vocabulary_;
  std::string index_checksum_;
  RandomFile bin_;
  int code_ = 0;                              // Megatron's name of the integer type
  std::vector<std::int64_t> document_begin_;  // [documents + 1]
};

class TokenFileWriter {
 public:
  /// uint16 tokens when the vocabulary is below 65,500, int32 otherwise, as Megatron does.
  TokenFileWriter(std::string prefix, std::int64_t vocabulary);

  void append_document(std::span<const std::int32_t> tokens);
  std::int64_t documents() const { return static_cast<std::int64_t>(lengths_.size()); }
  std::int64_t tokens() const { return tokens_; }
  /// Gives the files their names, PREFIX.idx last, and PREFIX.json with the counts filled in.
  void finish(TokenDescription description);

 private:
  std::string prefix_;
  std::int64_t vocabulary_;
  OutputFile bin_, idx_, json_;
  std::vector<std::int32_t> lengths_;
  std::vector<std::uint16_t> narrow_;
  std::int64_t tokens_ = 0;
};

}  // namespace conclave
