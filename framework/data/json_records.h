// JSON files as a row of records: one object per line, or an array of objects, or objects one after the
// other. Each record keeps the text of a document in one of its fields.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "framework/data/text_source.h"

namespace conclave {

/// RecordLayout says how the records of a file stand in it. none: the file is text like any other.
enum class RecordLayout { none, lines, values };

/// Files called .jsonl or .ndjson have a record in each line. A file called .json is looked into: an array of
/// objects or several objects are records. A single object is a record if its field `json_field` is a string.
/// Else the file is a text, such as the settings of a program. Capital letters in the ending, or the ending
/// of a compressed file behind it, change nothing.
RecordLayout record_layout_of(const std::string& path, const std::string& json_field);

/// The objects of a file with the layout `values`, one after the other.
class ValueReader {
 public:
  /// `path` is for errors.
  ValueReader(TextSource& source, std::string path) : source_(source), path_(std::move(path)) {}

  /// As it is written; nothing at the end.
  std::optional<std::string> next();

 private:
  TextSource& source_;
  std::string path_;
  bool begun_ = false, in_array_ = false;
};

struct RecordText {
  std::string text;
  bool lone_surrogates = false;  // which UTF-8 cannot say: they became U+FFFD
};

/// The text of a record, which is read as Python's json module reads it. That allows NaN, Infinity, numbers
/// of any size and halves of surrogate pairs. `place` is for errors: file and line.
RecordText text_of_record(const std::string& record, const std::string& json_field, const std::string& place);

}  // namespace conclave
