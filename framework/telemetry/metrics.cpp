#include "framework/telemetry/metrics.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "framework/base/error.h"
#include "framework/telemetry/terminal.h"

namespace conclave {
namespace {

void append_text(std::string& json, const std::string& text) {
  json += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (byte < 0x20) {
      constexpr char digits[] = "0123456789abcdef";
      json += "\\u00";
      json += digits[byte >> 4];
      json += digits[byte & 15];
    } else {
      json += c;
    }
  }
  json += '"';
}

void append_number(std::string& json, double number) {
  if (!std::isfinite(number)) {
    json += "null";
    return;
  }
  std::array<char, 32> buffer;
  const auto [end, status] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number);
  check(status == std::errc(), "to_json: a double needs more than 32 characters");
  json.append(buffer.data(), end);
}

void append_list(std::string& json, const std::vector<std::int64_t>& numbers) {
  json += '[';
  for (std::size_t i = 0; i < numbers.size(); ++i) json += (i > 0 ? ", " : "") + std::to_string(numbers[i]);
  json += ']';
}

/// The end of the string that opens at `at`, just after its closing quote.
std::size_t skip_string(std::string_view line, std::size_t at) {
  for (++at; at < line.size() && line[at] != '"'; ++at)
    if (line[at] == '\\') ++at;
  return at + 1;
}

}  // namespace

std::string to_json(const Metrics& metrics) {
  std::string json = "{";
  for (const auto& [name, value] : metrics) {
    if (json.size() > 1) json += ", ";
    append_text(json, name);
    json += ": ";
    if (const auto* whole = std::get_if<std::int64_t>(&value))
      json += std::to_string(*whole);
    else if (const auto* number = std::get_if<double>(&value))
      append_number(json, *number);
    else if (const auto* truth = std::get_if<bool>(&value))
      json += *truth ? "true" : "false";
    else if (const auto* list = std::get_if<std::vector<std::int64_t>>(&value))
      append_list(json, *list);
    else
      append_text(json, std::get<std::string>(value));
  }
  return json + "}";
}

std::optional<std::int64_t> step_of_line(std::string_view line) {
  int depth = 0;
  for (std::size_t at = 0; at < line.size();) {
    if (line[at] == '{' || line[at] == '[') ++depth;
    if (line[at] == '}' || line[at] == ']') --depth;
    if (line[at] != '"') {
      ++at;
      continue;
    }
    const std::size_t end = skip_string(line, at);
    std::size_t value = end;
    while (value < line.size() && line[value] == ' ') ++value;
    const bool is_step = depth == 1 && line.substr(at, end - at) == "\"step\"";
    if (is_step && value < line.size() && line[value] == ':') {
      do ++value;
      while (value < line.size() && line[value] == ' ');
      std::int64_t step = 0;
      const auto result = std::from_chars(line.data() + value, line.data() + line.size(), step);
      return result.ec == std::errc() ? std::optional(step) : std::nullopt;
    }
    at = end;
  }
  return std::nullopt;
}

MetricsWriter::MetricsWriter(std::string path, std::optional<std::int64_t> resumed_step)
    : path_(std::move(path)) {
  if (resumed_step) drop_lines_after(*resumed_step);
  file_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0666);
  check(file_ >= 0, Fault::request, "'", path_, "' cannot be written: ", std::strerror(errno));
  if (resumed_step) return;
  struct stat status {};
  const bool empty = fstat(file_, &status) == 0 && status.st_size == 0;
  if (!empty) close(std::exchange(file_, -1));
  check(empty, Fault::request, "'", path_, "' has content already, which would be lost; move it away");
}

MetricsWriter::~MetricsWriter() {
  if (file_ >= 0) close(file_);
}

void MetricsWriter::write(const Metrics& metrics) {
  const bool written = write_all(file_, to_json(metrics) + "\n");  // before the arguments below read errno
  check(written, Fault::machine, "'", path_, "' cannot be written: ", std::strerror(errno));
}

void MetricsWriter::drop_lines_after(std::int64_t step) {
  std::ifstream input(path_, std::ios::binary);
  if (!input.is_open()) return;  // the checkpoint was carried to a new directory: nothing to keep
  std::ostringstream content;
  content << input.rdbuf();
  const std::string text = content.str();
  std::string kept;
  for (std::size_t start = 0, end; (end = text.find('\n', start)) != std::string::npos; start = end + 1) {
    const std::optional<std::int64_t> line_step =
        step_of_line(std::string_view(text).substr(start, end - start));
    if (!line_step || *line_step <= step)
      kept.append(text, start, end + 1 - start);
    else
      ++dropped_lines_;
  }
  if (kept.size() == text.size()) return;
  // A rename swaps the files as a whole, so that a crash here loses neither.
  const std::string temporary = path_ + ".new";
  const int file = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  check(file >= 0, Fault::request, "'", temporary, "' cannot be written: ", std::strerror(errno));
  const bool written = write_all(file, kept) && fsync(file) == 0;
  const bool closed = close(file) == 0;
  const bool renamed = written && closed && std::rename(temporary.c_str(), path_.c_str()) == 0;
  check(renamed, Fault::machine, "'", path_, "' cannot be written: ", std::strerror(errno));
}

}  // namespace conclave
