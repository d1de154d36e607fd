#include "framework/data/json_records.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "framework/base/error.h"
#include "framework/data/file_ending.h"

namespace conclave {
namespace {

bool is_space(char letter) {
  return letter == ' ' || letter == '\t' || letter == '\n' || letter == '\r';
}

std::optional<char> peek_past_space(TextSource& source) {
  std::optional<char> letter = source.peek();
  for (; letter && is_space(*letter); letter = source.peek()) source.skip();
  return letter;
}

/// From an opening brace to the one that closes it; false where a string has no end in its line or the file
/// ends first. The parser reads the text between the braces.
bool take_object(TextSource& source, std::string& object) {
  std::int64_t depth = 0;
  bool in_string = false, escaped = false;
  for (std::optional<char> letter = source.peek(); letter; letter = source.peek()) {
    object += *letter;
    source.skip();
    if (in_string) {
      if (*letter == '\n') return false;
      if (*letter == '"' && !escaped) in_string = false;
      escaped = *letter == '\\' && !escaped;
    } else if (*letter == '"') {
      in_string = true;
    } else if (*letter == '{' || *letter == '[') {
      ++depth;
    } else if ((*letter == '}' || *letter == ']') && --depth == 0) {
      return true;
    }
  }
  return false;
}

/// Four hexadecimal digits after \u; nothing where they are no such digits.
std::optional<unsigned> code_unit(std::string_view text) {
  unsigned unit = 0;
  if (text.size() < 6 || !text.starts_with("\\u")) return std::nullopt;
  const auto [end, status] = std::from_chars(text.data() + 2, text.data() + 6, unit, 16);
  return status == std::errc() && end == text.data() + 6 ? std::optional(unit) : std::nullopt;
}

/// Says in JSON what Python reads beyond it, since the parser's library refuses that.
class PythonJson {
 public:
  explicit PythonJson(std::string_view text) : rest_(text) {
    while (!rest_.empty()) (rest_.front() == '"' ? take_string() : take_other());
  }
  std::string json;
  bool lone_surrogates = false;

 private:
  void take(std::size_t bytes) {
    json += rest_.substr(0, bytes);
    rest_.remove_prefix(std::min(bytes, rest_.size()));
  }
  void replace(std::size_t bytes, std::string_view by) {
    json += by;
    rest_.remove_prefix(bytes);
  }

  void take_string() {
    take(1);
    while (!rest_.empty() && rest_.front() != '"') {
      const std::optional<unsigned> unit = code_unit(rest_);
      if (!unit || *unit < 0xD800 || *unit > 0xDFFF) {
        take(rest_.front() == '\\' ? 2 : 1);
        continue;
      }
      const unsigned next = code_unit(rest_.substr(6)).value_or(0);
      if (*unit < 0xDC00 && next >= 0xDC00 && next <= 0xDFFF) {
        take(12);
        continue;
      }
      replace(6, "\\ufffd");
      lone_surrogates = true;
    }
    take(1);
  }

  void take_other() {
    for (const std::string_view word : {"-Infinity", "Infinity", "NaN"})
      if (rest_.starts_with(word)) return replace(word.size(), "null");
    const std::size_t number = std::min(rest_.find_first_not_of("+-.0123456789eE"), rest_.size());
    if (number == 0) return take(1);
    // Only the field with the text is used, so a number that is too large may as well be another one.
    const std::string digits(rest_.substr(0, number));
    const bool too_large = std::isinf(std::strtod(digits.c_str(), nullptr));
    too_large ? replace(number, "0") : take(number);
  }

  std::string_view rest_;
};

std::string text_of_field(nlohmann::json record, const std::string& json_field, const std::string& place) {
  check(record.is_object(), Fault::data, place, ": this line is a JSON ", record.type_name(),
        "; an object like {\"", json_field, "\": \"...\"} is expected");
  const auto field = record.find(json_field);
  check(field != record.end(), Fault::data, place, ": the JSON object has no field \"", json_field,
        "\"; `--json-field` names the one that keeps the text");
  check(field->is_string(), Fault::data, place, ": the field \"", json_field, "\" is a JSON ",
        field->type_name(), "; a string is expected");
  return std::move(field->get_ref<std::string&>());
}

/// Nothing where it is no JSON.
std::optional<nlohmann::json> parse(std::string_view text) {
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

std::size_t first_wrong_byte(const std::string& text) {
  try {
    const auto whole = nlohmann::json::parse(text);
    return text.size();
  } catch (const nlohmann::json::parse_error& error) {
    return error.byte;
  } catch (const nlohmann::json::exception&) {  // a number beyond a double, which is no reason by itself
    return text.size();
  }
}

bool has_text(const std::string& object, const std::string& json_field) {
  const auto record = parse(PythonJson(object).json);
  return record && record->is_object() && record->contains(json_field) && (*record)[json_field].is_string();
}

/// The layout of a file called .json.
RecordLayout layout_by_content(TextSource& source, const std::string& json_field) {
  source.skip_byte_order_mark();
  const std::optional<char> first = peek_past_space(source);
  if (first == '[') {
    source.skip();
    return peek_past_space(source) == '{' ? RecordLayout::values : RecordLayout::none;
  }
  if (first != '{') return RecordLayout::none;
  std::string object;
  const std::size_t line = source.line();
  const bool whole = take_object(source, object), one_line = source.line() == line;
  const bool more = peek_past_space(source) == '{';
  if (!whole) return more ? RecordLayout::lines : RecordLayout::none;  // the line will be named as damaged
  if (more) return one_line && source.line() > line ? RecordLayout::lines : RecordLayout::values;
  return !source.peek() && has_text(object, json_field) ? RecordLayout::values : RecordLayout::none;
}

}  // namespace

RecordLayout record_layout_of(const std::string& path, const std::string& json_field) {
  const std::string_view name = without_compression_ending(path);
  if (has_ending(name, ".jsonl") || has_ending(name, ".ndjson")) return RecordLayout::lines;
  if (!has_ending(name, ".json")) return RecordLayout::none;
  TextSource source(path);
  return layout_by_content(source, json_field);
}

std::optional<std::string> ValueReader::next() {
  if (!begun_) {
    source_.skip_byte_order_mark();
    in_array_ = peek_past_space(source_) == '[';
    if (in_array_) source_.skip();
  } else if (in_array_ && peek_past_space(source_) == ',') {
    source_.skip();
  }
  const bool may_close = std::exchange(begun_, true) && in_array_;
  std::optional<char> letter = peek_past_space(source_);
  if (letter == ']' && may_close) {
    source_.skip();
    in_array_ = false;
    letter = peek_past_space(source_);
  }
  const std::size_t line = source_.line();
  check(letter || !in_array_, Fault::data, path_, ":", line,
        ": the JSON array has no end; the file is truncated or damaged");
  if (!letter) return std::nullopt;
  check(letter == '{', Fault::data, path_, ":", line,
        ": a JSON object like the others of this file was expected, and '", *letter, "' came");
  std::string object;
  check(take_object(source_, object), Fault::data, path_, ":", line,
        ": the JSON object that begins here has no end; the file is truncated or damaged");
  return object;
}

RecordText text_of_record(const std::string& record, const std::string& json_field,
                          const std::string& place) {
  if (std::optional<nlohmann::json> parsed = parse(record))
    return {.text = text_of_field(std::move(*parsed), json_field, place)};
  const PythonJson python(record);
  try {
    std::string text = text_of_field(nlohmann::json::parse(python.json), json_field, place);
    const bool replaced = python.lone_surrogates && text.find("\xEF\xBF\xBD") != std::string::npos;
    return {.text = std::move(text), .lone_surrogates = replaced};
  } catch (const nlohmann::json::exception&) {
    fail(Fault::data, place, ": this line is not valid JSON (at byte ", first_wrong_byte(record),
         " of the line); one object per line is expected, or a .json file with an array of them");
  }
}

}  // namespace conclave
