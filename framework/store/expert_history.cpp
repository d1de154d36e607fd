#include "framework/store/expert_history.h"

#include <algorithm>
#include <exception>

#include "framework/base/error.h"
#include "framework/store/durable_file.h"
#include "framework/store/hdf5_file.h"
#include "framework/store/lookup.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

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

template <class T>
std::vector<T> read_dataset(const Hdf5File& file, const std::string& name) {
  const DatasetInfo info = file.describe(name);
  std::vector<T> values(static_cast<std::size_t>(element_count(info.dims)));
  file.read(name, ElementTypeOf<T>::value, info.dims, values.data());
  return values;
}

void check_layout(const Hdf5File& file, const fs::path& path, const ExpertHistoryWriter::Options& options) {
  const std::int64_t layers = file.integer_attribute("/", "layers");
  const std::int64_t experts = file.integer_attribute("/", "experts");
  const std::string domains = file.text_attribute("/", "domains");
  check(layers == options.layers && experts == options.experts && domains == join_lines(options.domains),
        Fault::data, "Expert history ", path.string(), " has ", layers, " layers, ", experts, " experts and ",
        split_lines(domains).size(), " evaluation domains; the run has ", options.layers, ", ",
        options.experts, " and ", options.domains.size(),
        ", or other names. Move the file away to begin a new one.");
}

void create_structure(Hdf5File& file, const ExpertHistoryWriter::Options& options) {
  const std::int64_t layers = options.layers, experts = options.experts;
  const auto domains = static_cast<std::int64_t>(options.domains.size());
  file.set_attribute("/", "layers", layers);
  file.set_attribute("/", "experts", experts);
  file.set_attribute("/", "domains", join_lines(options.domains));
  file.create_rows("step", ElementType::int64, {});
  file.create_rows("counts", ElementType::int64, {layers, experts});
  file.create_rows("probability", ElementType::float64, {layers, experts});
  file.create_rows("evaluation/step", ElementType::int64, {});
  file.create_rows("evaluation/counts", ElementType::int64, {domains, layers, experts});
}

/// Changes a copy of the file, or a new one, and puts it in the file's place.
template <class Change>
void replace_file(const fs::path& path, bool has_file, const ExpertHistoryWriter::Options& options,
                  Change change) {
  const fs::path partial = partial_path(path);
  if (has_file) {
    std::error_code code;
    fs::copy_file(path, partial, fs::copy_options::overwrite_existing, code);
    check(!code, Fault::machine, "Cannot copy ", path.string(), " to ", partial.string(), ": ",
          code.message(), ". Check free space and permissions of its directory.");
  }
  Hdf5File file(partial, has_file ? Hdf5File::Mode::modify : Hdf5File::Mode::create);
  if (!has_file) create_structure(file, options);
  change(file);
  file.close();
  sync_to_disk(partial);
  publish(partial, path);
}

}  // namespace

ExpertHistory read_expert_history(const fs::path& path) {
  const Hdf5File file(path, Hdf5File::Mode::read);
  ExpertHistory history;
  history.layers = file.integer_attribute("/", "layers");
  history.experts = file.integer_attribute("/", "experts");
  history.domains = split_lines(file.text_attribute("/", "domains"));
  history.step = read_dataset<std::int64_t>(file, "step");
  history.counts = read_dataset<std::int64_t>(file, "counts");
  history.probability = read_dataset<double>(file, "probability");
  history.evaluation_step = read_dataset<std::int64_t>(file, "evaluation/step");
  history.evaluation_counts = read_dataset<std::int64_t>(file, "evaluation/counts");
  return history;
}

ExpertHistoryWriter::ExpertHistoryWriter(const fs::path& path, Options options)
    : path_(path), options_(std::move(options)) {
  if (path_.has_parent_path()) make_directories(path_.parent_path());
  std::error_code ignored;
  fs::remove(partial_path(path_), ignored);  // of a run that was killed here
  if (options_.resume_step >= 0) {
    if (is_there(path_)) drop_rows_after(options_.resume_step);
    return;
  }
  std::error_code code;
  fs::remove(path_, code);  // now, so that no reader takes the rows of an earlier run for this one's
  check(!code, Fault::machine, "Cannot remove the expert history ", path_.string(),
        " of an earlier run: ", code.message(), ". Check the permissions of its directory.");
}

ExpertHistoryWriter::~ExpertHistoryWriter() {
  try {
    flush();
  } catch (const std::exception&) {
    // A destructor cannot report; the trainer flushes at every checkpoint and at the end, and does.
  }
}

void ExpertHistoryWriter::drop_rows_after(std::int64_t step) {
  const auto rows_up_to = [step](const std::vector<std::int64_t>& steps) {
    return static_cast<std::int64_t>(std::upper_bound(steps.begin(), steps.end(), step) - steps.begin());
  };
  std::vector<std::int64_t> steps, evaluation_steps;
  {
    const Hdf5File file(path_, Hdf5File::Mode::read);
    check_layout(file, path_, options_);
    steps = read_dataset<std::int64_t>(file, "step");
    evaluation_steps = read_dataset<std::int64_t>(file, "evaluation/step");
  }
  has_file_ = true;
  rows_in_file_ = rows_up_to(steps);
  const std::int64_t evaluations = rows_up_to(evaluation_steps);
  if (rows_in_file_ == static_cast<std::int64_t>(steps.size()) &&
      evaluations == static_cast<std::int64_t>(evaluation_steps.size()))
    return;
  replace_file(path_, has_file_, options_, [&](Hdf5File& file) {
    for (const char* name : {"step", "counts", "probability"}) file.keep_rows(name, rows_in_file_);
    for (const char* name : {"evaluation/step", "evaluation/counts"}) file.keep_rows(name, evaluations);
  });
}

void ExpertHistoryWriter::add_step(std::int64_t step, const std::vector<std::int64_t>& counts,
                                   const std::vector<double>& probability) {
  const auto expected = static_cast<std::size_t>(options_.layers * options_.experts);
  check(counts.size() == expected && probability.size() == expected,
        "ExpertHistoryWriter::add_step: ", counts.size(), " counts and ", probability.size(),
        " probabilities came, expected ", expected, " of each");
  pending_.step.push_back(step);
  pending_.counts.insert(pending_.counts.end(), counts.begin(), counts.end());
  pending_.probability.insert(pending_.probability.end(), probability.begin(), probability.end());
  // The threshold grows with the file, so that all copying together costs a constant times the final size.
  const auto waiting = static_cast<std::int64_t>(pending_.step.size());
  if (waiting >= std::max(options_.flush_interval, rows_in_file_ / 32)) flush();
}

void ExpertHistoryWriter::add_evaluation(std::int64_t step, const std::vector<std::int64_t>& counts) {
  const std::size_t expected =
      options_.domains.size() * static_cast<std::size_t>(options_.layers * options_.experts);
  check(counts.size() == expected, "ExpertHistoryWriter::add_evaluation: ", counts.size(),
        " counts came, expected ", expected);
  pending_.evaluation_step.push_back(step);
  pending_.evaluation_counts.insert(pending_.evaluation_counts.end(), counts.begin(), counts.end());
}

void ExpertHistoryWriter::flush() {
  const auto rows = static_cast<std::int64_t>(pending_.step.size());
  const auto evaluations = static_cast<std::int64_t>(pending_.evaluation_step.size());
  if (rows == 0 && evaluations == 0) return;
  replace_file(path_, has_file_, options_, [&](Hdf5File& file) {
    file.append_rows("step", rows, pending_.step.data());
    file.append_rows("counts", rows, pending_.counts.data());
    file.append_rows("probability", rows, pending_.probability.data());
    file.append_rows("evaluation/step", evaluations, pending_.evaluation_step.data());
    file.append_rows("evaluation/counts", evaluations, pending_.evaluation_counts.data());
  });
  has_file_ = true;
  rows_in_file_ += rows;
  pending_ = {};
}

}  // namespace conclave
