// How inputs become documents. Files are read part by part, so that memory holds only the current document.
#include "framework/data/documents.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "framework/base/error.h"
#include "framework/data/file_ending.h"
#include "framework/data/tokenizer.h"

namespace conclave {
namespace {

namespace filesystem = std::filesystem;

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

bool has_extension(const std::string& path, const std::string& extension) {
  return extension.empty() || filesystem::path(path).extension() == extension ||
         filesystem::path(without_compression_ending(path)).extension() == extension;
}

std::string without_zeros(const std::string& text) {
  std::string result;
  for (const char letter : text) {
    if (letter == '\0')
      result += "\xEF\xBF\xBD";
    else
      result += letter;
  }
  return result;
}

/// The files below a folder in name order, which is the same on every machine.
std::vector<std::string> files_below(const filesystem::path& folder, const std::string& extension) {
  std::vector<std::string> paths;
  try {
    for (auto entry = filesystem::recursive_directory_iterator(folder); entry != end(entry); ++entry) {
      const bool hidden = entry->path().filename().string().starts_with(".");
      if (hidden && entry->is_directory()) entry.disable_recursion_pending();
      if (!hidden && entry->is_regular_file() && has_extension(entry->path().string(), extension))
        paths.push_back(entry->path().string());
    }
  } catch (const filesystem::filesystem_error& error) {
    fail(Fault::data, "the folder ", folder.string(), " cannot be read: ", error.code().message());
  }
  check(!paths.empty(), Fault::data, "the folder ", folder.string(), " holds no file",
        extension.empty() ? "" : " that ends in ", extension, "; at least one is expected",
        extension.empty() || extension.starts_with(".") ? ""
                                                        : "; did you mean --extension ." + extension + "?");
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

DocumentReader::DocumentReader(const std::vector<std::string>& inputs, DocumentOptions options)
    : options_(std::move(options)) {
  check(!inputs.empty(), Fault::request, "no input came; expected text files, JSON files or folders of them");
  check(options_.separator == "file" || options_.separator == "blank-line" || options_.separator == "line",
        Fault::request, "document separator ", options_.separator,
        " came, expected line, blank-line or file");
  check(options_.split_long == 0 || options_.split_long >= 16, Fault::request, "pieces of ",
        options_.split_long, " bytes came for the split of long documents, expected at least 16");
  for (const std::string& input : inputs) {
    std::error_code code;
    const auto status = filesystem::status(input, code);
    check(filesystem::exists(status), Fault::data, "the input ", input,
          " cannot be read: ", code ? code.message() : "no such file");
    if (filesystem::is_directory(status)) {
      for (std::string& path : files_below(input, options_.extension)) paths_.push_back(std::move(path));
    } else {
      paths_.push_back(input);
    }
  }
  for (const std::string& path : paths_) {
    std::error_code code;
    const auto size = filesystem::file_size(path, code);
    if (!code)
      total_bytes_ += static_cast<std::int64_t>(size);  // what cannot be opened fails when its turn comes
  }
}

bool DocumentReader::open_next_file() {
  finished_bytes_ += source_ ? source_->bytes_used() : 0;
  values_.reset();
  source_.reset();
  if (file_ == paths_.size()) return false;
  ++file_;
  const bool is_json = has_ending(without_compression_ending(path()), ".json");
  layout_ =
      is_json && options_.json_as_text ? RecordLayout::none : record_layout_of(path(), options_.json_field);
  if (is_json && !options_.json_as_text && layout_ == RecordLayout::none)
    json_read_as_text_.push_back(path());
  source_.emplace(path());
  source_->skip_byte_order_mark();
  if (layout_ == RecordLayout::values) values_.emplace(*source_, path());
  if (!source_->peek()) {
    check(options_.skip_empty, Fault::data, "the input ", path(),
          " is empty; a document with text is expected (`--empty skip` passes over such files)");
    ++skipped_;
  }
  return true;
}

/// Takes the lines up to a blank one, or a single line that is not blank.
std::optional<DocumentReader::Extent> DocumentReader::next_lines(bool single) {
  std::string line;
  while (source_->peek()) {
    Extent extent{"", source_->offset(), source_->line()};
    source_->take_line(extent.raw);
    if (is_blank(extent.raw)) continue;
    while (!single && source_->take_line(line) && !is_blank(line)) {
      extent.raw += line;
      line.clear();
    }
    while (extent.raw.ends_with('\n') || extent.raw.ends_with('\r')) extent.raw.pop_back();
    return extent;
  }
  return std::nullopt;
}

/// The raw bytes of the next document of the open file.
std::optional<DocumentReader::Extent> DocumentReader::next_extent() {
  if (layout_ == RecordLayout::lines) return next_lines(true);
  if (layout_ == RecordLayout::values) {
    auto value = values_->next();
    if (!value) return std::nullopt;
    const std::size_t line =
        source_->line() - static_cast<std::size_t>(std::count(value->begin(), value->end(), '\n'));
    return Extent{std::move(*value), source_->offset() - value->size(), line};
  }
  if (options_.separator != "file") return next_lines(options_.separator == "line");
  if (!source_->peek()) return std::nullopt;
  Extent extent{"", source_->offset(), source_->line()};
  source_->take_all(extent.raw);
  return extent;
}

std::string DocumentReader::checked_utf8(Extent& extent) const {
  const std::size_t bad = first_invalid_utf8(extent.raw), zero = extent.raw.find('\0');
  if (bad == std::string::npos && zero == std::string::npos) return std::move(extent.raw);
  if (options_.replace_invalid) return without_zeros(replace_invalid_utf8(extent.raw));
  check(bad <= zero, Fault::data, "the input ", path(), " is not text: the byte at offset ",
        extent.offset + zero, source_->compressed() ? " of its unpacked text" : "",
        " is a zero, which no text has; leave the file out, convert it, or `--invalid-utf8 replace`");
  const std::size_t offset = extent.offset + bad;
  fail(Fault::data, "the input ", path(), " is not UTF-8 text: the byte at offset ", offset,
       source_->compressed() ? " of its unpacked text" : "", " is ",
       static_cast<int>(static_cast<unsigned char>(extent.raw[bad])),
       ", which begins no valid character there; convert the file (iconv), or `--invalid-utf8 replace`");
}

/// Nothing where a line is passed over.
std::optional<std::string> DocumentReader::text_of(Extent extent) {
  const bool record = layout_ != RecordLayout::none, line = record || options_.separator == "line";
  try {
    std::string text = checked_utf8(extent);
    if (!record) return text;
    RecordText read = text_of_record(text, options_.json_field, join_text(path(), ":", extent.line));
    lone_surrogates_ += read.lone_surrogates;
    return std::move(read.text);
  } catch (const Error& error) {
    if (!options_.skip_bad_lines || !line || error.fault() != Fault::data) throw;
    note_bad_line(error.what());
    return std::nullopt;
  }
}

void DocumentReader::note_bad_line(const std::string& reason) {
  if (bad_lines_++ == 0) first_bad_line_ = reason;
}

Document DocumentReader::next_piece() {
  const std::size_t limit = static_cast<std::size_t>(options_.split_long);
  const std::string_view rest = std::string_view(long_text_).substr(long_at_);
  std::size_t length = rest.size();
  if (limit > 0 && length > limit) {
    const std::size_t newline = rest.substr(0, limit).rfind('\n');
    length = newline == std::string_view::npos ? limit : newline + 1;
    if (newline == std::string_view::npos)  // never inside a character
      while ((static_cast<unsigned char>(rest[length]) & 0xC0) == 0x80) --length;
  }
  if (length == long_text_.size()) return {std::exchange(long_text_, {}), true};
  Document piece{std::string(rest.substr(0, length)), length == rest.size()};
  long_at_ += length;
  if (piece.complete) {
    long_text_.clear();
    long_at_ = 0;
  }
  return piece;
}

std::optional<Document> DocumentReader::next() {
  if (!long_text_.empty()) return next_piece();
  while (true) {
    std::optional<Extent> extent = source_ ? next_extent() : std::nullopt;
    if (!extent) {
      if (!open_next_file()) return std::nullopt;
      continue;
    }
    const std::size_t line = extent->line;
    std::optional<std::string> text = text_of(std::move(*extent));
    if (!text) continue;
    if (is_blank(*text)) {
      if (!options_.skip_empty && options_.skip_bad_lines && layout_ != RecordLayout::none) {
        note_bad_line(join_text(path(), ":", line, ": this document holds no text"));
        continue;
      }
      check(options_.skip_empty, Fault::data, path(), ":", line,
            ": this document holds no text; at least one character is expected (`--empty skip` passes over "
            "it)");
      ++skipped_;
      continue;
    }
    long_text_ = std::move(*text);
    long_at_ = 0;
    return next_piece();
  }
}

}  // namespace conclave
