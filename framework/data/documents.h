// DocumentReader: walks text files, JSON Lines files and folders, and hands out one document after the other.
// What is not valid UTF-8, not JSON or empty is an error that says where, unless allowed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "framework/data/files.h"

namespace conclave {

struct DocumentOptions {
  std::string separator = "file";   // file | blank-line | line: what ends a document in a text file
  std::string json_field = "text";  // where a line of a .jsonl file keeps its text
  bool replace_invalid = false;     // invalid UTF-8 becomes U+FFFD instead of an error
  bool skip_empty = false;          // a document without text is passed over instead of an error
  std::int64_t split_long = 0;  // longer documents are cut at line ends into pieces of at most these bytes
  std::string extension{};      // of the files to take from folders, for example .py; empty: all
};

struct Document {
  std::string text;
  bool complete = true;  // false: a piece of a long document, the next one goes on
};

class DocumentReader {
 public:
  DocumentReader(const std::vector<std::string>& inputs, DocumentOptions options);

  /// The next document (or piece of a long one), nothing at the end.
  std::optional<Document> next();

  std::int64_t total_bytes() const { return total_bytes_; }
  std::int64_t bytes_read() const { return finished_bytes_ + static_cast<std::int64_t>(at_); }
  std::int64_t skipped() const { return skipped_; }

 private:
  struct Extent {
    std::string_view raw;
    std::size_t line;  // of the file, from 1
  };
  bool open_next_file();
  std::optional<Extent> next_extent();
  std::string_view take_line();
  std::string text_of(const Extent& extent, bool json);
  std::string checked_utf8(std::string_view raw) const;
  Document next_piece();

  DocumentOptions options_;
  std::vector<std::string> paths_;
  std::size_t file_ = 0;  // paths_[file_ - 1] is open when file_ > 0
  MappedFile mapped_;
  std::size_t at_ = 0, line_ = 1;
  std::int64_t total_bytes_ = 0, finished_bytes_ = 0, skipped_ = 0;
  std::string long_text_;  // the document that is being handed out in pieces
  std::size_t long_at_ = 0;
};

}  // namespace conclave
