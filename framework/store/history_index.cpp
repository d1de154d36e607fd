#include "framework/store/history_index.h"

#include <charconv>
#include <cstdio>
#include <sstream>
#include <string_view>
#include <system_error>

#include "framework/base/error.h"
#include "framework/store/durable_file.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

constexpr const char* table_attribute = "segments";
constexpr std::string_view name_begin = "segment-", name_end = ".h5";
constexpr std::size_t name_digits = 8;

std::string table_of(const std::vector<HistorySegment>& segments) {
  std::string table;
  for (const HistorySegment& segment : segments)
    table += join_text(segment.file.checksum, " ", segment.file.bytes, " ", segment.level, " ",
                       segment.used.steps, " ", segment.used.evaluations, " ", segment.file.name, "\n");
  return table + checksum_text(table.data(), table.size()) + " of the lines above\n";
}

std::vector<HistorySegment> segments_of(const std::string& table, const fs::path& path) {
  const auto damaged = [&](const std::string& what) {
    fail(Fault::data, "Expert history ", path.string(), ": its list of segments ", what, ". It is damaged.");
  };
  std::vector<HistorySegment> segments;
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with(" of the lines above")) break;
    HistorySegment& segment = segments.emplace_back();
    std::istringstream words(line);
    words >> segment.file.checksum >> segment.file.bytes >> segment.level >> segment.used.steps >>
        segment.used.evaluations >> segment.file.name;
    // A name becomes part of a path: it must not lead out of the directory.
    if (words.fail() || !segment_number(segment.file.name) || segment.level < 0)
      damaged("has a line of another form");
  }
  if (table_of(segments) != table) damaged("does not match its own checksum");
  return segments;
}

/// The dims of a column in a file with so many rows.
Dims dims_of(const HistoryColumn& column, const HistoryShape& shape, const HistorySize& size) {
  Dims dims = column.row_dims(shape);
  dims.insert(dims.begin(), size.of(column.rows));
  return dims;
}

/// The used rows of a segment, from `row` on in the whole; one part for all domains where they are the same.
void add_parts(std::vector<VirtualPart>& parts, const HistoryColumn& column, const HistoryShape& shape,
               const HistorySegment& segment, const std::string& file, std::int64_t row) {
  HistoryShape own = shape;
  own.domains = segment.domains;
  const Dims dims = dims_of(column, own, segment.there), used = dims_of(column, own, segment.used);
  if (element_count(used) == 0) return;
  VirtualPart part{file, column.name, dims, {Dims(dims.size()), used}, {Dims(dims.size()), used}};
  part.to.start[0] = row;
  if (!column.by_domain || segment.domains == shape.domains) {
    parts.push_back(part);
    return;
  }
  const std::vector<std::int64_t> places = places_of_domains(segment.domains, shape.domains);
  part.from.size[1] = part.to.size[1] = 1;
  for (std::size_t domain = 0; domain < places.size(); ++domain) {
    part.from.start[1] = static_cast<std::int64_t>(domain);
    part.to.start[1] = places[domain];
    if (places[domain] >= 0) parts.push_back(part);
  }
}

/// The segments that an index names; nothing for a file of an earlier version.
std::optional<std::string> table_in(const fs::path& path) {
  const Hdf5File file(path, Hdf5File::Mode::read);
  if (!file.has_attribute("/", table_attribute)) return std::nullopt;
  return file.text_attribute("/", table_attribute);
}

OpenHistory open_segments(const fs::path& path, const std::string& table, SegmentCheck depth) {
  OpenHistory history;
  {
    const Hdf5File file(path, Hdf5File::Mode::read);
    history.index.shape = read_shape(file, path);
  }
  const HistoryShape& shape = history.index.shape;
  history.index.segments = segments_of(table, path);
  for (HistorySegment& segment : history.index.segments) {
    verify_segment(path, segment, SegmentCheck::sizes);
    auto file = std::make_unique<HistoryFile>(segments_directory(path) / segment.file.name);
    verify_segment(path, segment, depth);
    check(file->shape().layers == shape.layers && file->shape().experts == shape.experts, Fault::data,
          "Expert history ", path.string(), ": the segment ", segment.file.name, " has ",
          file->shape().layers, " layers of ", file->shape().experts, " experts, expected ", shape.layers,
          " of ", shape.experts, ".");
    file->use(segment.used);
    segment.there = file->there();
    segment.domains = file->shape().domains;
    history.files.push_back(std::move(file));
  }
  return history;
}

}  // namespace

fs::path segments_directory(const fs::path& index) {
  return index.parent_path() / index.stem();
}

std::string segment_name(std::int64_t number) {
  char name[40];
  std::snprintf(name, sizeof name, "segment-%08lld.h5", static_cast<long long>(number));
  return name;
}

std::optional<std::int64_t> segment_number(const std::string& name) {
  std::string_view rest = name;
  if (const std::string_view partial = ".partial"; rest.ends_with(partial))
    rest.remove_suffix(partial.size());
  if (!rest.starts_with(name_begin) || !rest.ends_with(name_end)) return std::nullopt;
  rest.remove_prefix(name_begin.size());
  rest.remove_suffix(name_end.size());
  std::int64_t number = 0;
  const auto [end, status] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  const bool good =
      status == std::errc() && end == rest.data() + rest.size() && number >= 0 && rest.size() >= name_digits;
  return good ? std::optional(number) : std::nullopt;
}

void write_history_index(const fs::path& path, const HistoryIndex& index) {
  HistorySize size;
  for (const HistorySegment& segment : index.segments) {
    size.steps += segment.used.steps;
    size.evaluations += segment.used.evaluations;
  }
  Hdf5File file(path, Hdf5File::Mode::memory);
  write_shape(file, index.shape);
  file.set_attribute("/", table_attribute, table_of(index.segments));
  for (const HistoryColumn& column : history_columns()) {
    const Dims dims = dims_of(column, index.shape, size);
    std::vector<VirtualPart> parts;
    std::int64_t row = 0;
    for (const HistorySegment& segment : index.segments) {
      const std::string name = segments_directory(path).filename() / segment.file.name;
      add_parts(parts, column, index.shape, segment, name, row);
      row += segment.used.of(column.rows);
    }
    if (element_count(dims) == 0)
      file.write(column.name, column.type, dims, nullptr);
    else
      file.write_virtual(column.name, column.type, dims, parts);
  }
  const FileImage image = file.take_image();
  write_text_durably(path, {reinterpret_cast<const char*>(image.bytes().data()), image.bytes().size()});
}

void verify_segment(const fs::path& index, const HistorySegment& segment, SegmentCheck depth) {
  const fs::path path = segments_directory(index) / segment.file.name;
  std::error_code code;
  const std::uintmax_t bytes = fs::file_size(path, code);
  check(!code, Fault::data, "Expert history ", index.string(), ": its segment ", path.string(),
        " cannot be read (", code.message(), ").");
  check(bytes == segment.file.bytes, Fault::data, "Expert history ", index.string(), ": its segment ",
        path.string(), " has ", bytes, " bytes, expected ", segment.file.bytes,
        ". It was cut short or changed.");
  if (depth == SegmentCheck::sizes) return;
  const std::string found = file_checksum(path);
  check(found == segment.file.checksum, Fault::data, "Expert history ", index.string(), ": its segment ",
        path.string(), " has checksum ", found, ", expected ", segment.file.checksum,
        ". Its content changed after it was written.");
}

OpenHistory open_history(const fs::path& path, SegmentCheck depth) {
  constexpr int tries = 8;
  for (int attempt = 1;; ++attempt) {
    const std::optional<std::string> table = table_in(path);
    if (!table) {
      OpenHistory history;
      history.files.push_back(std::make_unique<HistoryFile>(path));
      history.index.shape = history.files.back()->shape();
      return history;
    }
    try {
      return open_segments(path, *table, depth);
    } catch (const Error&) {
      // A run that is going on may just have merged these segments; then another index stands here by now.
      if (attempt == tries || table_in(path) == table) throw;
    }
  }
}

}  // namespace conclave
