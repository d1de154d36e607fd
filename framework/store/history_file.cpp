#include "framework/store/history_file.h"

#include <algorithm>
#include <cstring>
#include <system_error>
#include <utility>

#include "framework/base/error.h"
#include "framework/store/durable_file.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t words_at_once = std::int64_t{1} << 19;  // 4 MB
constexpr std::int64_t largest_dim = std::int64_t{1} << 32;

std::string join_lines(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : "\n") + line;
  return text;
}

std::vector<std::string> split_lines(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

/// Where the rows of a column go in the file that is being composed.
struct Place {
  const HistoryColumn* column;
  std::size_t offset;
};

/// The file without its rows, and where they go.
std::pair<FileImage, std::vector<Place>> lay_out(const fs::path& path, const HistoryShape& shape,
                                                 const HistorySize& size) {
  Hdf5File file(path, Hdf5File::Mode::memory);
  write_shape(file, shape);
  std::vector<Place> places;
  for (const HistoryColumn& column : history_columns()) {
    Dims dims = column.row_dims(shape);
    dims.insert(dims.begin(), size.of(column.rows));
    if (element_count(dims) == 0)
      file.write(column.name, column.type, dims, nullptr);
    else
      places.push_back({&column, file.reserve(column.name, column.type, dims)});
  }
  return {file.take_image(), std::move(places)};
}

/// Copies the rows of a column, some at a time, to where they go.
void fill(std::byte* target, const HistoryColumn& column, const HistoryShape& shape,
          const std::vector<const HistorySource*>& sources) {
  for (const HistorySource* source : sources) {
    // Counts are read for what is derived from them, and a source may have more domains than the file.
    const std::int64_t width =
        std::max({row_elements(column, shape), row_elements(column, source->shape()),
                  column.derived ? row_elements(history_column("counts"), shape) : 1, std::int64_t{1}});
    const std::int64_t all = source->size(column.rows),
                       rows = std::max<std::int64_t>(1, words_at_once / width);
    for (std::int64_t first = 0; first < all; first += rows) {
      const HistoryWords words = words_for(shape, *source, column, first, std::min(rows, all - first));
      std::memcpy(target, words.data(), words.size() * sizeof(std::int64_t));
      target += words.size() * sizeof(std::int64_t);
    }
  }
}

}  // namespace

void write_shape(Hdf5File& file, const HistoryShape& shape) {
  file.set_attribute("/", "layers", shape.layers);
  file.set_attribute("/", "experts", shape.experts);
  file.set_attribute("/", "expert_ranks", shape.expert_ranks);
  file.set_attribute("/", "domains", join_lines(shape.domains));
}

HistoryShape read_shape(const Hdf5File& file, const fs::path& path) {
  HistoryShape shape;
  shape.layers = file.integer_attribute("/", "layers");
  shape.experts = file.integer_attribute("/", "experts");
  if (file.has_attribute("/", "expert_ranks"))
    shape.expert_ranks = file.integer_attribute("/", "expert_ranks");
  shape.domains = split_lines(file.text_attribute("/", "domains"));
  check(shape.layers >= 0 && shape.layers < largest_dim && shape.experts > 0 && shape.experts < largest_dim &&
            shape.expert_ranks > 0 && shape.experts % shape.expert_ranks == 0,
        Fault::data, "Expert history ", path.string(), " says that it has ", shape.layers, " layers of ",
        shape.experts, " experts on ", shape.expert_ranks, " ranks. It is damaged.");
  return shape;
}

HistoryFile::HistoryFile(const fs::path& path)
    : path_(path), file_(path, Hdf5File::Mode::read), shape_(read_shape(file_, path)) {
  const auto rows_of = [&](const char* name) {
    const Dims dims = file_.describe(name).dims;
    return dims.empty() ? 0 : dims[0];
  };
  there_ = {rows_of("step"), rows_of("evaluation/step")};
  for (const HistoryColumn& column : history_columns())
    if (!column.optional || has(column)) check_column(column);
  used_ = there_;
}

void HistoryFile::check_column(const HistoryColumn& column) const {
  const DatasetInfo info = file_.describe(column.name);
  Dims expected = column.row_dims(shape_);
  expected.insert(expected.begin(), there_.of(column.rows));
  check(info.type == column.type && info.dims == expected, Fault::data, "Expert history ", path_.string(),
        ": ", column.name, " is ", element_name(info.type), " of dims ", dims_text(info.dims), ", expected ",
        element_name(column.type), " of ", dims_text(expected), ". It is damaged or not a run's own.");
  std::error_code code;
  const std::uintmax_t there = fs::file_size(path_, code);
  // Nothing in it is compressed: a dataset larger than its file is an announcement without content.
  check(!code && info.bytes() <= there, Fault::data, "Expert history ", path_.string(), ": ", column.name,
        " announces ", info.bytes(), " bytes in a file of ", there, ". It is damaged.");
}

void HistoryFile::use(const HistorySize& size) {
  check(size.steps >= 0 && size.evaluations >= 0 && size.steps <= there_.steps &&
            size.evaluations <= there_.evaluations,
        Fault::data, "Expert history ", path_.string(), " has ", there_.steps, " steps and ",
        there_.evaluations, " evaluations, expected at least ", size.steps, " and ", size.evaluations,
        ". It is damaged.");
  used_ = size;
}

HistorySize HistoryFile::up_to(std::int64_t step) const {
  const auto count = [&](const char* name, std::int64_t rows) {
    const HistoryWords steps = words(history_column(name), 0, rows);
    return static_cast<std::int64_t>(std::upper_bound(steps.begin(), steps.end(), step) - steps.begin());
  };
  return {count("step", used_.steps), count("evaluation/step", used_.evaluations)};
}

HistoryWords HistoryFile::words(const HistoryColumn& column, std::int64_t first, std::int64_t rows) const {
  HistoryWords words(static_cast<std::size_t>(rows * row_elements(column, shape_)), missing_word(column));
  if (words.empty() || !has(column)) return words;
  Dims start(column.row_dims(shape_).size() + 1), size = column.row_dims(shape_);
  start[0] = first;
  size.insert(size.begin(), rows);
  file_.read_box(column.name, column.type, {start, size}, words.data());
  return words;
}

FileEntry compose_segment(const fs::path& path, const HistoryShape& shape,
                          const std::vector<const HistorySource*>& sources) {
  HistorySize size;
  for (const HistorySource* source : sources) {
    size.steps += source->size(HistoryRows::steps);
    size.evaluations += source->size(HistoryRows::evaluations);
  }
  const auto [image, places] = lay_out(path, shape, size);
  for (const Place& place : places) fill(image.bytes().data() + place.offset, *place.column, shape, sources);
  const fs::path partial = partial_path(path);
  make_directories(path.parent_path());
  try {
    DurableFile file(partial);
    file.write(image.bytes().data(), image.bytes().size());
    file.sync();
    publish(partial, path);
  } catch (...) {
    std::error_code ignored;  // what is said is why it could not be written
    fs::remove(partial, ignored);
    throw;
  }
  return {path.filename().string(), image.bytes().size(),
          checksum_text(image.bytes().data(), image.bytes().size())};
}

}  // namespace conclave
