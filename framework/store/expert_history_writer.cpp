#include "framework/store/expert_history_writer.h"

#include <algorithm>
#include <exception>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "framework/base/error.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

constexpr std::size_t merged_at_once = 10;

HistoryShape shape_of(const ExpertHistoryOptions& options) {
  return {options.layers, options.experts, options.expert_ranks, options.domains};
}

/// A segment of so many rows is not merged again before as many others are there.
std::int64_t level_of(std::int64_t rows, std::int64_t flush_interval) {
  std::int64_t level = 0;
  for (; rows >= flush_interval * static_cast<std::int64_t>(merged_at_once); rows /= merged_at_once) ++level;
  return level;
}

/// The bytes of the rows that count.
std::size_t bytes_of(const HistorySource& source) {
  std::int64_t elements = 0;
  for (const HistoryColumn& column : history_columns())
    elements += source.size(column.rows) * row_elements(column, source.shape());
  return static_cast<std::size_t>(elements) * sizeof(std::int64_t);
}

void remove_quietly(const fs::path& path) {
  std::error_code ignored;  // what stays is found and removed at the run's next start
  fs::remove(path, ignored);
}

}  // namespace

ExpertHistoryWriter::ExpertHistoryWriter(const fs::path& path, Options options)
    : path_(path), options_(std::move(options)), waiting_(shape_of(options_)) {
  if (path_.has_parent_path()) make_directories(path_.parent_path());
  remove_quietly(partial_path(path_));  // of a run that was killed here
  index_.shape = shape_of(options_);
  next_try_ = options_.flush_interval;
  for (const fs::path& entry : entries_of(segments_directory(path_), Fault::machine))
    if (const auto number = segment_number(entry.filename().string()))
      last_number_ = std::max(last_number_, *number);
  if (options_.resume_step < 0)
    begin_anew();
  else if (is_there(path_))
    go_on_or_set_aside();
  // Without an index the segments may be those of one that was moved away alone, and stay.
}

ExpertHistoryWriter::~ExpertHistoryWriter() {
  try {
    flush();
    for (const auto* names : {&merged_, &outdated_})
      for (const std::string& name : *names)
        if (published_) remove_quietly(segments_directory(path_) / name);
    if (const WaitingRows& rows = waiting_; !rows.steps().empty() && options_.warn)
      options_.warn(join_text("The run ends before ", path_.string(), " could be written: its steps ",
                              rows.steps().front(), " to ", rows.steps().back(), " are not in it."));
  } catch (const std::exception&) {
    // A destructor cannot report; the trainer flushes at every checkpoint and at the end.
  }
}

void ExpertHistoryWriter::begin_anew() {
  std::error_code code;
  fs::remove(path_, code);  // now, so that no reader takes the rows of an earlier run for this one's
  check(!code, Fault::machine, "Cannot remove the expert history ", path_.string(),
        " of an earlier run: ", code.message(), ". Check the permissions of its directory.");
  remove_others();
  last_number_ = 0;
}

void ExpertHistoryWriter::go_on_or_set_aside() {
  try {
    go_on();
  } catch (const Error& error) {
    if (error.fault() != Fault::data) throw;
    check(static_cast<bool>(options_.warn), Fault::data, error.what(),
          " Move it and the directory beside it away to begin a new one.");
    const fs::path place = set_aside();
    options_.warn(join_text(error.what(), " Training needs none of it: what is left is now in ",
                            place.string(), ", and a new history begins after step ", options_.resume_step,
                            "."));
  }
}

fs::path ExpertHistoryWriter::set_aside() {
  fs::path place;
  for (int number = 1; place.empty() || is_there(place); ++number)
    place = path_.parent_path() / join_text(path_.stem().string(), "-damaged-", number);
  make_directories(place);
  // The segments first: an index without them would be refused by the next start, too.
  for (const fs::path& from : {segments_directory(path_), path_}) {
    std::error_code code;
    if (!is_there(from)) continue;
    fs::rename(from, place / from.filename(), code);
    check(!code, Fault::machine, "Cannot move ", from.string(), " to ", place.string(), ": ", code.message(),
          ". Check the permissions of its directory.");
  }
  index_ = {};
  index_.shape = shape_of(options_);
  last_evaluation_ = -1;
  published_ = true;
  return place;
}

void ExpertHistoryWriter::go_on() {
  const OpenHistory history = open_history(path_, SegmentCheck::sizes);
  const HistoryShape& shape = history.index.shape;
  check(shape.layers == options_.layers && shape.experts == options_.experts, Fault::data, "Expert history ",
        path_.string(), " has ", shape.layers, " layers and ", shape.experts, " experts; the run has ",
        options_.layers, " and ", options_.experts, ".");
  bool other = history.index.segments.empty();
  for (const auto& file : history.files) {
    file->use(file->up_to(options_.resume_step));
    other = other || file->shape().expert_ranks != options_.expert_ranks;
    const std::int64_t evaluations = file->size(HistoryRows::evaluations);
    if (evaluations == 0) continue;
    index_.shape.domains = joined_domains(index_.shape.domains, file->shape().domains);
    last_evaluation_ = file->words(history_column("evaluation/step"), evaluations - 1, 1).front();
  }
  if (other) {
    write_anew(history);
    remove_others();
    return;
  }
  for (std::size_t i = 0; i < history.files.size(); ++i) {
    HistorySegment segment = history.index.segments[i];
    const HistorySize used{history.files[i]->size(HistoryRows::steps),
                           history.files[i]->size(HistoryRows::evaluations)};
    published_ = published_ && used == segment.used;
    segment.used = used;
    if (used != HistorySize{}) index_.segments.push_back(std::move(segment));
  }
  published_ = published_ && index_.shape.domains == shape.domains &&
               index_.segments.size() == history.index.segments.size();
  publish();
  remove_others();
}

void ExpertHistoryWriter::write_anew(const OpenHistory& history) {
  for (std::size_t i = 0; i < history.files.size(); ++i) {
    const HistoryFile& file = *history.files[i];
    const std::int64_t steps = file.size(HistoryRows::steps),
                       evaluations = file.size(HistoryRows::evaluations);
    std::int64_t level = level_of(steps, options_.flush_interval);
    if (!history.index.segments.empty()) {
      verify_segment(path_, history.index.segments[i], SegmentCheck::content);
      level = history.index.segments[i].level;
    }
    const std::int64_t parts = 1 + static_cast<std::int64_t>(bytes_of(file) / options_.largest_segment);
    for (std::int64_t part = 0; part < parts; ++part) {
      const auto range = [&](std::int64_t rows) {
        const std::int64_t first = rows * part / parts;
        return PartOfRows::Range{first, rows * (part + 1) / parts - first};
      };
      const PartOfRows rows(file, range(steps), range(evaluations));
      if (rows.size(HistoryRows::steps) + rows.size(HistoryRows::evaluations) > 0)
        index_.segments.push_back(compose({&rows}, file.shape().domains, level));
    }
  }
  published_ = false;
  publish();
}

void ExpertHistoryWriter::remove_others() {
  std::set<std::string> named;
  for (const HistorySegment& segment : index_.segments) named.insert(segment.file.name);
  for (const fs::path& entry : entries_of(segments_directory(path_), Fault::machine)) {
    const std::string name = entry.filename().string();
    if (segment_number(name) && !named.contains(name)) remove_quietly(entry);
  }
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
  waiting_.add("step", {step});
  waiting_.add("counts", counts);
  waiting_.add("probability", to_words(probability));
  waiting_.add("layer_balance_loss", to_words(layer_balance_loss));
  if (waiting_.size(HistoryRows::steps) >= next_try_) flush();
  keep_within_memory();
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
  waiting_.add("evaluation/step", {step});
  waiting_.add("evaluation/counts", counts);
  waiting_.add("evaluation/score_sum", to_words(score_sum));
  waiting_.add("evaluation/entropy", to_words(entropy));
}

HistorySegment ExpertHistoryWriter::compose(const std::vector<const HistorySource*>& sources,
                                            const std::vector<std::string>& domains, std::int64_t level) {
  HistoryShape shape = shape_of(options_);
  shape.domains = domains;
  HistorySegment segment;
  for (const HistorySource* source : sources) {
    segment.there.steps += source->size(HistoryRows::steps);
    segment.there.evaluations += source->size(HistoryRows::evaluations);
  }
  segment.used = segment.there;
  segment.domains = domains;
  segment.level = level;
  const std::int64_t number = last_number_ + 1;
  segment.file = compose_segment(segments_directory(path_) / segment_name(number), shape, sources);
  last_number_ = number;
  return segment;
}

void ExpertHistoryWriter::write_waiting() {
  if (waiting_.empty()) return;
  index_.segments.push_back(compose({&waiting_}, options_.domains, 0));
  waiting_.clear();
  published_ = false;
}

void ExpertHistoryWriter::merge() {
  std::vector<HistorySegment>& segments = index_.segments;
  while (!segments.empty()) {
    const std::int64_t level = segments.back().level;
    std::size_t first = segments.size();
    while (first > 0 && segments[first - 1].level == level) --first;
    if (segments.size() - first < merged_at_once) return;
    std::uint64_t bytes = 0;
    for (std::size_t i = first; i < segments.size(); ++i) bytes += segments[i].file.bytes;
    if (bytes > options_.largest_segment) return;
    std::vector<std::unique_ptr<HistoryFile>> files;
    std::vector<const HistorySource*> sources;
    for (std::size_t i = first; i < segments.size(); ++i) {
      // A damaged segment must not get a new checksum.
      verify_segment(path_, segments[i], SegmentCheck::content);
      files.push_back(std::make_unique<HistoryFile>(segments_directory(path_) / segments[i].file.name));
      files.back()->use(segments[i].used);
      sources.push_back(files.back().get());
    }
    HistorySegment whole = compose(sources, index_.shape.domains, level + 1);
    for (std::size_t i = first; i < segments.size(); ++i) merged_.push_back(segments[i].file.name);
    segments.erase(segments.begin() + static_cast<std::ptrdiff_t>(first), segments.end());
    segments.push_back(std::move(whole));
    published_ = false;
  }
}

void ExpertHistoryWriter::publish() {
  if (published_) return;
  write_history_index(path_, index_);
  published_ = true;
  // A reader may have opened the index before this one a moment ago, so what that one names stays a while.
  for (const std::string& name : outdated_) remove_quietly(segments_directory(path_) / name);
  outdated_ = std::exchange(merged_, {});
}

void ExpertHistoryWriter::flush() {
  if (waiting_.empty() && published_) return;
  std::optional<Error> failure;
  const auto attempt = [&](void (ExpertHistoryWriter::*part)()) {
    try {
      (this->*part)();
    } catch (const Error& error) {
      if (error.fault() == Fault::internal || !options_.warn) throw;
      if (!failure) failure = error;
    }
  };
  attempt(&ExpertHistoryWriter::write_waiting);
  attempt(&ExpertHistoryWriter::merge);
  attempt(&ExpertHistoryWriter::publish);
  if (failure)
    note_failure(failure->what());
  else
    note_success();
  next_try_ = waiting_.size(HistoryRows::steps) + options_.flush_interval;
}

void ExpertHistoryWriter::note_failure(const std::string& reason) {
  if (!std::exchange(failing_, true))
    options_.warn(join_text("The expert history cannot be written: ", reason,
                            " Training goes on; rows that are not written yet wait in memory."));
}

void ExpertHistoryWriter::note_success() {
  if (!std::exchange(failing_, false)) return;
  const std::string missing =
      lost_ > 0 ? join_text("; ", lost_, " of its steps ", first_lost_, " to ", last_lost_, " are missing")
                : "; no row is missing";
  options_.warn(join_text("The expert history ", path_.string(), " is written again", missing, "."));
  lost_ = 0;
}

void ExpertHistoryWriter::keep_within_memory() {
  if (!failing_ || waiting_.bytes() <= options_.most_waiting_bytes) return;
  // Some at once: what is behind them moves.
  const std::int64_t rows =
      std::min(std::max<std::int64_t>(1, options_.flush_interval / 4), waiting_.size(HistoryRows::steps));
  if (lost_ == 0) first_lost_ = waiting_.steps().front();
  last_lost_ = waiting_.steps()[static_cast<std::size_t>(rows - 1)];
  lost_ += rows;
  waiting_.drop(rows);
  next_try_ = std::max(options_.flush_interval, next_try_ - rows);
}

}  // namespace conclave
