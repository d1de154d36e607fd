// DocumentReader walks text files, JSON files and folders, and hands out one document after the other. Files
// may be compressed. Text that is empty, not valid UTF-8 or not JSON is an error that says where, unless
// allowed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "framework/data/json_records.h"
#include "framework/data/text_source.h"

namespace conclave {

struct DocumentOptions {
  std::string separator = "file";   // file | blank-line | line: what ends a document in a text file
  std::string json_field = "text";  // where a record of a JSON file keeps its text
  bool json_as_text = false;        // a file called .json is text, whatever is in it
  bool replace_invalid = false;     // invalid UTF-8 becomes U+FFFD instead of an error
  bool skip_empty = false;          // a document without text is passed over instead of an error
  std::int64_t split_long = 0;  // longer documents are cut at line ends into pieces of at most these bytes
  std::string extension{};      // of the files to take from folders, for example .py; empty: all
  bool skip_bad_lines = false;  // a line that is a document and cannot be read is passed over and counted
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
  /// All files, those of folders included.
  const std::vector<std::string>& paths() const { return paths_; }
  /// These count bytes of the files, which may be compressed.
  std::int64_t bytes_read() const { return finished_bytes_ + (source_ ? source_->bytes_used() : 0); }
  std::int64_t skipped() const { return skipped_; }  // empty documents
  std::int64_t bad_lines() const { return bad_lines_; }
  /// The sentence about the first of them.
  const std::string& first_bad_line() const { return first_bad_line_; }
  /// Files called .json whose content is no documents in JSON, so that the whole of each is text.
  const std::vector<std::string>& json_read_as_text() const { return json_read_as_text_; }
  /// Documents in which half of a surrogate pair became U+FFFD.
  std::int64_t lone_surrogates() const { return lone_surrogates_; }

 private:
  struct Extent {
    std::string raw;
    std::size_t offset, line;  // of its beginning in the file; lines from 1
  };
  bool open_next_file();
  std::optional<Extent> next_extent();
  std::optional<Extent> next_lines(bool single);
  std::optional<std::string> text_of(Extent extent);
  std::string checked_utf8(Extent& extent) const;
  void note_bad_line(const std::string& reason);
  Document next_piece();
  const std::string& path() const { return paths_[file_ - 1]; }

  DocumentOptions options_;
  std::vector<std::string> paths_;
  std::size_t file_ = 0;  // paths_[file_ - 1] is open when file_ > 0
  std::optional<TextSource> source_;
  RecordLayout layout_ = RecordLayout::none;
  std::optional<ValueReader> values_;
  std::int64_t total_bytes_ = 0, finished_bytes_ = 0, skipped_ = 0, bad_lines_ = 0, lone_surrogates_ = 0;
  std::string first_bad_line_;
  std::vector<std::string> json_read_as_text_;
  std::string long_text_;  // the document that is being handed out in pieces
  std::size_t long_at_ = 0;
};

}  // namespace conclave
