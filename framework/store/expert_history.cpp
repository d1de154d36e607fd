#include "framework/store/expert_history.h"

#include <algorithm>

#include "framework/base/error.h"
#include "framework/store/history_index.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

/// A column over all files.
HistoryWords all_words(const OpenHistory& history, const char* name) {
  const HistoryColumn& column = history_column(name);
  HistoryWords all;
  for (const auto& file : history.files) {
    const HistoryWords words = words_for(history.index.shape, *file, column, 0, file->size(column.rows));
    all.insert(all.end(), words.begin(), words.end());
  }
  return all;
}

/// An experts.h5 of a version that did not measure how sharply routers choose has no scores.
bool has_scores(const OpenHistory& history) {
  return std::all_of(history.files.begin(), history.files.end(), [](const auto& file) {
    return file->has(history_column("evaluation/score_sum")) &&
           file->has(history_column("evaluation/entropy"));
  });
}

ExpertHistory overview_of(const OpenHistory& history) {
  const HistoryShape& shape = history.index.shape;
  ExpertHistory result;
  result.layers = shape.layers;
  result.experts = shape.experts;
  result.expert_ranks = shape.expert_ranks;
  result.domains = shape.domains;
  result.step = all_words(history, "step");
  result.evaluation_step = all_words(history, "evaluation/step");
  result.evaluation_counts = all_words(history, "evaluation/counts");
  if (has_scores(history)) {
    result.evaluation_score_sum = to_reals(all_words(history, "evaluation/score_sum"));
    result.evaluation_entropy = to_reals(all_words(history, "evaluation/entropy"));
  }
  return result;
}

}  // namespace

ExpertHistory read_expert_history(const fs::path& path) {
  const OpenHistory history = open_history(path, SegmentCheck::content);
  ExpertHistory result = overview_of(history);
  result.counts = all_words(history, "counts");
  result.probability = to_reals(all_words(history, "probability"));
  result.load_per_expert_rank = all_words(history, "load_per_expert_rank");
  result.layer_balance_loss = to_reals(all_words(history, "layer_balance_loss"));
  result.layer_load_violation = to_reals(all_words(history, "layer_load_violation"));
  return result;
}

ExpertHistoryReader::ExpertHistoryReader(const fs::path& path)
    : open_(std::make_unique<OpenHistory>(open_history(path, SegmentCheck::content))),
      overview_(overview_of(*open_)) {}

ExpertHistoryReader::~ExpertHistoryReader() = default;

std::vector<std::int64_t> ExpertHistoryReader::counts(std::int64_t first_row, std::int64_t rows) const {
  const HistoryColumn& column = history_column("counts");
  const auto all = static_cast<std::int64_t>(overview_.step.size());
  check(first_row >= 0 && rows >= 0 && rows <= all - first_row, "ExpertHistoryReader::counts: ", rows,
        " rows from row ", first_row, " on were asked for, and there are ", all);
  std::vector<std::int64_t> values;
  std::int64_t begin = 0;  // of the file's rows among all
  for (const auto& file : open_->files) {
    const std::int64_t size = file->size(HistoryRows::steps), first = std::max(first_row, begin),
                       last = std::min(first_row + rows, begin + size);
    if (first < last) {
      const HistoryWords words = file->words(column, first - begin, last - first);
      values.insert(values.end(), words.begin(), words.end());
    }
    begin += size;
  }
  return values;
}

}  // namespace conclave
