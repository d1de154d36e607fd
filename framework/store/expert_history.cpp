#include "framework/store/expert_history.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <limits>
#include <numeric>

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
std::vector<T> read_dataset(const Hdf5File& file, const fs::path& path, const std::string& name) {
  const DatasetInfo info = file.describe(name);
  std::error_code code;
  const std::uintmax_t there = fs::file_size(path, code);
  // Nothing in it is compressed: a dataset larger than its file is an announcement without content.
  check(!code && info.bytes() <= there, Fault::data, "Expert history ", path.string(), ": ", name,
        " announces ", info.bytes(), " bytes in a file of ", there,
        ". It is damaged; move it away to begin a new one.");
  std::vector<T> values(static_cast<std::size_t>(element_count(info.dims)));
  file.read(name, ElementTypeOf<T>::value, info.dims, values.data());
  return values;
}

/// Datasets that grow together: as many rows as `steps` has, of these dims.
void check_rows(const Hdf5File& file, const fs::path& path, const char* steps,
                const std::vector<const char*>& names, const std::vector<Dims>& row_dims) {
  const Dims rows = file.describe(steps).dims;
  const auto refuse = [&](const char* name, const Dims& found) {
    fail(Fault::data, "Expert history ", path.string(), ": ", name, " has dims ", dims_text(found),
         " beside ", dims_text(rows), " of ", steps,
         ", or it cannot grow. It is damaged or not a run's own; move it away to begin a new one.");
  };
  if (rows.size() != 1 || !file.has_rows(steps)) refuse(steps, rows);
  for (std::size_t i = 0; i < names.size(); ++i) {
    Dims expected = row_dims[i];
    expected.insert(expected.begin(), rows[0]);
    const Dims found = file.describe(names[i]).dims;
    if (found != expected || !file.has_rows(names[i])) refuse(names[i], found);
  }
}

/// A file of a version that did not measure how sharply routers choose has none.
bool has_scores(const Hdf5File& file) {
  return file.contains("evaluation/score_sum");
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
  check_rows(file, path, "step", {"counts", "probability"}, {{layers, experts}, {layers, experts}});
  check_rows(file, path, "evaluation/step", {"evaluation/counts"},
             {{static_cast<std::int64_t>(options.domains.size()), layers, experts}});
  if (has_scores(file))
    check_rows(file, path, "evaluation/step", {"evaluation/score_sum", "evaluation/entropy"},
               std::vector<Dims>(2, {static_cast<std::int64_t>(options.domains.size()), layers}));
  if (file.has_attribute("/", "expert_ranks"))
    check_rows(file, path, "step", {"load_per_expert_rank", "layer_balance_loss", "layer_load_violation"},
               {{layers, file.integer_attribute("/", "expert_ranks")}, {layers}, {layers}});
}

/// A file of another layout, or of a version that did not keep loads by rank or scores.
bool must_be_written_anew(const Hdf5File& file, const ExpertHistoryWriter::Options& options) {
  return !has_scores(file) || !file.has_attribute("/", "expert_ranks") ||
         file.integer_attribute("/", "expert_ranks") != options.expert_ranks;
}

void create_structure(Hdf5File& file, const ExpertHistoryWriter::Options& options) {
  const std::int64_t layers = options.layers, experts = options.experts;
  const auto domains = static_cast<std::int64_t>(options.domains.size());
  file.set_attribute("/", "layers", layers);
  file.set_attribute("/", "experts", experts);
  file.set_attribute("/", "expert_ranks", options.expert_ranks);
  file.set_attribute("/", "domains", join_lines(options.domains));
  file.create_rows("step", ElementType::int64, {});
  file.create_rows("counts", ElementType::int64, {layers, experts});
  file.create_rows("probability", ElementType::float64, {layers, experts});
  file.create_rows("load_per_expert_rank", ElementType::int64, {layers, options.expert_ranks});
  file.create_rows("layer_balance_loss", ElementType::float64, {layers});
  file.create_rows("layer_load_violation", ElementType::float64, {layers});
  file.create_rows("evaluation/step", ElementType::int64, {});
  file.create_rows("evaluation/counts", ElementType::int64, {domains, layers, experts});
  file.create_rows("evaluation/score_sum", ElementType::float64, {domains, layers});
  file.create_rows("evaluation/entropy", ElementType::float64, {domains, layers});
}

/// Adds the rows of `history`; what follows from the counts is computed here.
void append(Hdf5File& file, const ExpertHistory& history, const ExpertHistoryWriter::Options& options) {
  const auto rows = static_cast<std::int64_t>(history.step.size());
  const auto evaluations = static_cast<std::int64_t>(history.evaluation_step.size());
  file.append_rows("step", rows, history.step.data());
  file.append_rows("counts", rows, history.counts.data());
  file.append_rows("probability", rows, history.probability.data());
  file.append_rows("load_per_expert_rank", rows,
                   load_per_expert_rank(history.counts, options.experts, options.expert_ranks).data());
  file.append_rows("layer_balance_loss", rows, history.layer_balance_loss.data());
  file.append_rows("layer_load_violation", rows, load_violations(history.counts, options.experts).data());
  file.append_rows("evaluation/step", evaluations, history.evaluation_step.data());
  file.append_rows("evaluation/counts", evaluations, history.evaluation_counts.data());
  file.append_rows("evaluation/score_sum", evaluations, history.evaluation_score_sum.data());
  file.append_rows("evaluation/entropy", evaluations, history.evaluation_entropy.data());
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

std::vector<std::int64_t> load_per_expert_rank(const std::vector<std::int64_t>& counts, std::int64_t experts,
                                               std::int64_t ranks) {
  check(ranks > 0 && experts % ranks == 0, "load_per_expert_rank: ", ranks, " ranks came for ", experts,
        " experts");
  const auto here = static_cast<std::size_t>(experts / ranks);
  std::vector<std::int64_t> loads(here > 0 ? counts.size() / here : 0);
  for (std::size_t i = 0; i < loads.size() * here; ++i) loads[i / here] += counts[i];
  return loads;
}

std::vector<double> relative_loads(const std::vector<std::int64_t>& counts, std::int64_t experts) {
  std::vector<double> loads;
  for (auto row = counts.begin(); row != counts.end(); row += experts) {
    const double even = static_cast<double>(std::accumulate(row, row + experts, std::int64_t{0})) /
                        static_cast<double>(experts);
    std::transform(row, row + experts, std::back_inserter(loads),
                   [even](std::int64_t count) { return even > 0 ? static_cast<double>(count) / even : 1; });
  }
  return loads;
}

std::vector<double> load_violations(const std::vector<std::int64_t>& loads, std::int64_t width) {
  std::vector<double> violations;
  for (auto row = loads.begin(); row != loads.end(); row += width) {
    const double sum = static_cast<double>(std::accumulate(row, row + width, std::int64_t{0}));
    const double most = static_cast<double>(*std::max_element(row, row + width));
    violations.push_back(sum > 0 ? most * static_cast<double>(width) / sum - 1 : 0);
  }
  return violations;
}

ExpertHistory read_expert_history(const fs::path& path) {
  const Hdf5File file(path, Hdf5File::Mode::read);
  ExpertHistory history;
  history.layers = file.integer_attribute("/", "layers");
  history.experts = file.integer_attribute("/", "experts");
  history.domains = split_lines(file.text_attribute("/", "domains"));
  history.step = read_dataset<std::int64_t>(file, path, "step");
  history.counts = read_dataset<std::int64_t>(file, path, "counts");
  history.probability = read_dataset<double>(file, path, "probability");
  if (file.has_attribute("/", "expert_ranks")) {
    history.expert_ranks = file.integer_attribute("/", "expert_ranks");
    history.load_per_expert_rank = read_dataset<std::int64_t>(file, path, "load_per_expert_rank");
    history.layer_balance_loss = read_dataset<double>(file, path, "layer_balance_loss");
    history.layer_load_violation = read_dataset<double>(file, path, "layer_load_violation");
  }
  history.evaluation_step = read_dataset<std::int64_t>(file, path, "evaluation/step");
  history.evaluation_counts = read_dataset<std::int64_t>(file, path, "evaluation/counts");
  if (has_scores(file)) {
    history.evaluation_score_sum = read_dataset<double>(file, path, "evaluation/score_sum");
    history.evaluation_entropy = read_dataset<double>(file, path, "evaluation/entropy");
  }
  return history;
}

ExpertHistoryReader::ExpertHistoryReader(const fs::path& path)
    : file_(std::make_unique<Hdf5File>(path, Hdf5File::Mode::read)) {
  overview_.layers = file_->integer_attribute("/", "layers");
  overview_.experts = file_->integer_attribute("/", "experts");
  overview_.domains = split_lines(file_->text_attribute("/", "domains"));
  overview_.step = read_dataset<std::int64_t>(*file_, path, "step");
  overview_.evaluation_step = read_dataset<std::int64_t>(*file_, path, "evaluation/step");
  overview_.evaluation_counts = read_dataset<std::int64_t>(*file_, path, "evaluation/counts");
  const auto domains = static_cast<std::int64_t>(overview_.domains.size());
  const auto steps = static_cast<std::int64_t>(overview_.step.size());
  const auto evaluations = static_cast<std::int64_t>(overview_.evaluation_step.size());
  std::vector<std::pair<const char*, Dims>> expected{
      {"counts", {steps, overview_.layers, overview_.experts}},
      {"evaluation/counts", {evaluations, domains, overview_.layers, overview_.experts}}};
  if (has_scores(*file_)) {
    overview_.evaluation_score_sum = read_dataset<double>(*file_, path, "evaluation/score_sum");
    overview_.evaluation_entropy = read_dataset<double>(*file_, path, "evaluation/entropy");
    for (const char* name : {"evaluation/score_sum", "evaluation/entropy"})
      expected.push_back({name, {evaluations, domains, overview_.layers}});
  }
  for (const auto& [name, dims] : expected) {
    const Dims found = file_->describe(name).dims;
    check(found == dims && overview_.layers >= 0 && overview_.experts > 0, Fault::data, "Expert history ",
          path.string(), ": ", name, " has dims ", dims_text(found), ", expected ", dims_text(dims),
          ". It is damaged.");
  }
}

ExpertHistoryReader::~ExpertHistoryReader() = default;

std::vector<std::int64_t> ExpertHistoryReader::counts(std::int64_t first_row, std::int64_t rows) const {
  const Box box{{first_row, 0, 0}, {rows, overview_.layers, overview_.experts}};
  std::vector<std::int64_t> values(static_cast<std::size_t>(element_count(box)));
  file_->read_box("counts", ElementType::int64, box, values.data());
  return values;
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
  bool other = false;
  {
    const Hdf5File file(path_, Hdf5File::Mode::read);
    check_layout(file, path_, options_);
    other = must_be_written_anew(file, options_);
    steps = read_dataset<std::int64_t>(file, path_, "step");
    evaluation_steps = read_dataset<std::int64_t>(file, path_, "evaluation/step");
  }
  has_file_ = true;
  rows_in_file_ = rows_up_to(steps);
  const std::int64_t evaluations = rows_up_to(evaluation_steps);
  if (evaluations > 0) last_evaluation_ = evaluation_steps[static_cast<std::size_t>(evaluations - 1)];
  if (other) return write_anew(evaluations);
  if (rows_in_file_ == static_cast<std::int64_t>(steps.size()) &&
      evaluations == static_cast<std::int64_t>(evaluation_steps.size()))
    return;
  replace_file(path_, has_file_, options_, [&](Hdf5File& file) {
    for (const char* name : {"step", "counts", "probability", "load_per_expert_rank", "layer_balance_loss",
                             "layer_load_violation"})
      file.keep_rows(name, rows_in_file_);
    for (const char* name :
         {"evaluation/step", "evaluation/counts", "evaluation/score_sum", "evaluation/entropy"})
      file.keep_rows(name, evaluations);
  });
}

void ExpertHistoryWriter::write_anew(std::int64_t evaluations) {
  ExpertHistory history = read_expert_history(path_);
  const auto rows = static_cast<std::size_t>(rows_in_file_),
             layers = static_cast<std::size_t>(options_.layers);
  const std::size_t row = layers * static_cast<std::size_t>(options_.experts);
  history.step.resize(rows);
  history.counts.resize(rows * row);
  history.probability.resize(rows * row);
  history.layer_balance_loss.resize(rows * layers, std::numeric_limits<double>::quiet_NaN());
  history.evaluation_step.resize(static_cast<std::size_t>(evaluations));
  const std::size_t domains = static_cast<std::size_t>(evaluations) * options_.domains.size();
  history.evaluation_counts.resize(domains * row);
  history.evaluation_score_sum.resize(domains * layers, std::numeric_limits<double>::quiet_NaN());
  history.evaluation_entropy.resize(domains * layers, std::numeric_limits<double>::quiet_NaN());
  replace_file(path_, false, options_, [&](Hdf5File& file) { append(file, history, options_); });
}

void ExpertHistoryWriter::add_step(std::int64_t step, const std::vector<std::int64_t>& counts,
                                   const std::vector<double>& probability,
                                   const std::vector<double>& layer_balance_loss) {
  const auto expected = static_cast<std::size_t>(options_.layers * options_.experts);
  check(counts.size() == expected && probability.size() == expected &&
            static_cast<std::int64_t>(layer_balance_loss.size()) == options_.layers,
        "ExpertHistoryWriter::add_step: ", counts.size(), " counts, ", probability.size(),
        " probabilities and ", layer_balance_loss.size(), " losses came, expected ", expected,
        " of the first two and ", options_.layers, " losses");
  pending_.step.push_back(step);
  pending_.counts.insert(pending_.counts.end(), counts.begin(), counts.end());
  pending_.probability.insert(pending_.probability.end(), probability.begin(), probability.end());
  pending_.layer_balance_loss.insert(pending_.layer_balance_loss.end(), layer_balance_loss.begin(),
                                     layer_balance_loss.end());
  // The threshold grows with the file, so that all copying together costs a constant times the final size.
  const auto waiting = static_cast<std::int64_t>(pending_.step.size());
  if (waiting >= std::max(options_.flush_interval, rows_in_file_ / 32)) flush();
}

void ExpertHistoryWriter::add_evaluation(std::int64_t step, const std::vector<std::int64_t>& counts,
                                         const std::vector<double>& score_sum,
                                         const std::vector<double>& entropy) {
  const std::size_t scores = options_.domains.size() * static_cast<std::size_t>(options_.layers),
                    expected = scores * static_cast<std::size_t>(options_.experts);
  check(counts.size() == expected && score_sum.size() == scores && entropy.size() == scores,
        "ExpertHistoryWriter::add_evaluation: ", counts.size(), " counts, ", score_sum.size(),
        " score sums and ", entropy.size(), " entropies came, expected ", expected, " counts and ", scores,
        " of the others");
  if (step <= last_evaluation_) return;
  last_evaluation_ = step;
  pending_.evaluation_step.push_back(step);
  pending_.evaluation_counts.insert(pending_.evaluation_counts.end(), counts.begin(), counts.end());
  pending_.evaluation_score_sum.insert(pending_.evaluation_score_sum.end(), score_sum.begin(),
                                       score_sum.end());
  pending_.evaluation_entropy.insert(pending_.evaluation_entropy.end(), entropy.begin(), entropy.end());
}

void ExpertHistoryWriter::flush() {
  const auto rows = static_cast<std::int64_t>(pending_.step.size());
  const auto evaluations = static_cast<std::int64_t>(pending_.evaluation_step.size());
  if (rows == 0 && evaluations == 0) return;
  replace_file(path_, has_file_, options_, [&](Hdf5File& file) { append(file, pending_, options_); });
  has_file_ = true;
  rows_in_file_ += rows;
  pending_ = {};
}

}  // namespace conclave
