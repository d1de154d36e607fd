// How inputs become documents. Files are mapped, so that memory holds only the current document.
#include "framework/data/documents.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "framework/base/error.h"
#include "framework/data/tokenizer.h"

namespace conclave {
namespace {

namespace filesystem = std::filesystem;

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

bool is_json_lines(const std::string& path) {
  return path.ends_with(".jsonl") || path.ends_with(".ndjson");
}

/// The files below a folder in name order, which is the same on every machine.
std::vector<std::string> files_below(const filesystem::path& folder, const std::string& extension) {
  std::vector<std::string> paths;
  try {
    for (auto entry = filesystem::recursive_directory_iterator(folder); entry != end(entry); ++entry) {
      const bool hidden = entry->path().filename().string().starts_with(".");
      if (hidden && entry->is_directory()) entry.disable_recursion_pending();
      if (!hidden && entry->is_regular_file() &&
          (extension.empty() || entry->path().extension() == extension))
        paths.push_back(entry->path().string());
    }
  } catch (const filesystem::filesystem_error& error) {
    fail(Fault::data, "the folder ", folder.string(), " cannot be read: ", error.code().message());
  }
  check(!paths.empty(), Fault::data, "the folder ", folder.string(), " holds no file",
        extension.empty() ? "" : " that ends in ", extension, "; at least one is expected");
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

DocumentReader::DocumentReader(const std::vector<std::string>& inputs, DocumentOptions options)
    : options_(std::move(options)) {
  check(!inputs.empty(), Fault::request,
        "no input came; expected text files, .jsonl files or folders of them");
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
  finished_bytes_ += static_cast<std::int64_t>(mapped_.bytes().size());
  at_ = 0;
  line_ = 1;
  mapped_ = MappedFile();
  if (file_ == paths_.size()) return false;
  mapped_ = MappedFile(paths_[file_++], "the input");
  if (mapped_.bytes().empty()) {
    check(options_.skip_empty, Fault::data, "the input ", paths_[file_ - 1],
          " is empty; a document with text is expected (`--empty skip` passes over such files)");
    ++skipped_;
  }
  return true;
}

/// Through the next newline, which stays at the end.
std::string_view DocumentReader::take_line() {
  const std::string_view rest = mapped_.bytes().substr(at_);
  const std::size_t newline = rest.find('\n');
  const std::string_view line = rest.substr(0, newline == std::string_view::npos ? newline : newline + 1);
  at_ += line.size();
  ++line_;
  return line;
}

/// The raw bytes of the next document of the open file.
std::optional<DocumentReader::Extent> DocumentReader::next_extent() {
  const std::string_view all = mapped_.bytes();
  const bool by_line = options_.separator == "line" || is_json_lines(paths_[file_ - 1]);
  if (at_ == all.size()) return std::nullopt;
  if (!by_line && options_.separator == "file") {
    at_ = all.size();
    return Extent{all, 1};
  }
  while (at_ < all.size()) {
    const std::size_t begin = at_, first_line = line_;
    std::string_view line = take_line();
    if (is_blank(line)) continue;
    std::size_t end = at_;
    while (!by_line && at_ < all.size() && !is_blank(line = take_line())) end = at_;
    std::string_view raw = all.substr(begin, end - begin);
    while (raw.ends_with('\n') || raw.ends_with('\r')) raw.remove_suffix(1);
    return Extent{raw, first_line};
  }
  return std::nullopt;
}

std::string DocumentReader::checked_utf8(std::string_view raw) const {
  const std::size_t bad = first_invalid_utf8(raw);
  if (bad == std::string_view::npos) return std::string(raw);
  if (options_.replace_invalid) return replace_invalid_utf8(raw);
  const std::size_t offset = static_cast<std::size_t>(raw.data() - mapped_.bytes().data()) + bad;
  fail(Fault::data, "the input ", paths_[file_ - 1], " is not UTF-8 text: the byte at offset ", offset,
       " is ", static_cast<int>(static_cast<unsigned char>(raw[bad])),
       ", which begins no valid character there; convert the file (iconv), or `--invalid-utf8 replace`");
}

std::string DocumentReader::text_of(const Extent& extent, bool json) {
  std::string text = checked_utf8(extent.raw);
  if (!json) return text;
  const std::string& path = paths_[file_ - 1];
  try {
    auto record = nlohmann::json::parse(text);
    check(record.is_object(), Fault::data, path, ":", extent.line, ": this line is a JSON ",
          record.type_name(), "; an object like {\"", options_.json_field, "\": \"...\"} is expected");
    const auto field = record.find(options_.json_field);
    check(field != record.end(), Fault::data, path, ":", extent.line, ": the JSON object has no field \"",
          options_.json_field, "\"; `--json-field` names the one that keeps the text");
    check(field->is_string(), Fault::data, path, ":", extent.line, ": the field \"", options_.json_field,
          "\" is a JSON ", field->type_name(), "; a string is expected");
    return std::move(field->get_ref<std::string&>());
  } catch (const nlohmann::json::parse_error& error) {
    fail(Fault::data, path, ":", extent.line, ": this line is not valid JSON (at byte ", error.byte,
         " of the line); a .jsonl file keeps one object per line");
  } catch (const nlohmann::json::exception&) {  // valid JSON that a double cannot hold, as 1e999
    fail(Fault::data, path, ":", extent.line,
         ": this line has a number beyond 1.8e308, the largest that is read; ",
         "write it as a string, or leave it out");
  }
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
    const std::optional<Extent> extent = file_ > 0 ? next_extent() : std::nullopt;
    if (!extent) {
      if (!open_next_file()) return std::nullopt;
      continue;
    }
    std::string text = text_of(*extent, is_json_lines(paths_[file_ - 1]));
    if (is_blank(text)) {
      check(options_.skip_empty, Fault::data, paths_[file_ - 1], ":", extent->line,
            ": this document holds no text; at least one character is expected (`--empty skip` passes over "
            "it)");
      ++skipped_;
      continue;
    }
    long_text_ = std::move(text);
    long_at_ = 0;
    return next_piece();
  }
}

}  // namespace conclave
