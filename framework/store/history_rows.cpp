#include "framework/store/history_rows.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <map>

#include "framework/base/error.h"
#include "framework/store/expert_loads.h"

namespace conclave {
namespace {

using Shape = HistoryShape;
constexpr auto whole = ElementType::int64;
constexpr auto real = ElementType::float64;

Dims no_dims(const Shape&) {
  return {};
}
Dims by_layer(const Shape& s) {
  return {s.layers};
}
Dims by_expert(const Shape& s) {
  return {s.layers, s.experts};
}
Dims by_rank(const Shape& s) {
  return {s.layers, s.expert_ranks};
}
Dims by_domain_and_layer(const Shape& s) {
  return {static_cast<std::int64_t>(s.domains.size()), s.layers};
}
Dims by_domain_and_expert(const Shape& s) {
  return {static_cast<std::int64_t>(s.domains.size()), s.layers, s.experts};
}

constexpr std::array<HistoryColumn, 10> columns{{
    {"step", whole, HistoryRows::steps, no_dims},
    {"counts", whole, HistoryRows::steps, by_expert},
    {"probability", real, HistoryRows::steps, by_expert},
    {"load_per_expert_rank", whole, HistoryRows::steps, by_rank, false, true, true},
    {"layer_balance_loss", real, HistoryRows::steps, by_layer, false, false, true},
    {"layer_load_violation", real, HistoryRows::steps, by_layer, false, true, true},
    {"evaluation/step", whole, HistoryRows::evaluations, no_dims},
    {"evaluation/counts", whole, HistoryRows::evaluations, by_domain_and_expert, true},
    {"evaluation/score_sum", real, HistoryRows::evaluations, by_domain_and_layer, true, false, true},
    {"evaluation/entropy", real, HistoryRows::evaluations, by_domain_and_layer, true, false, true},
}};

std::size_t index_of(const HistoryColumn& column) {
  return static_cast<std::size_t>(&column - columns.data());
}

/// The name, and how many equal ones stand before it.
std::vector<std::pair<std::string, int>> numbered(const std::vector<std::string>& names) {
  std::map<std::string, int> seen;
  std::vector<std::pair<std::string, int>> result;
  for (const std::string& name : names) result.emplace_back(name, seen[name]++);
  return result;
}

}  // namespace

std::span<const HistoryColumn> history_columns() {
  return columns;
}

const HistoryColumn& history_column(std::string_view name) {
  for (const HistoryColumn& column : columns)
    if (column.name == name) return column;
  fail(Fault::internal, "history_column: experts.h5 has no ", name);
}

std::int64_t row_elements(const HistoryColumn& column, const HistoryShape& shape) {
  return element_count(column.row_dims(shape));
}

std::int64_t missing_word(const HistoryColumn& column) {
  return column.type == whole ? -1 : std::bit_cast<std::int64_t>(std::numeric_limits<double>::quiet_NaN());
}

std::vector<double> to_reals(const HistoryWords& words) {
  std::vector<double> reals;
  reals.reserve(words.size());
  for (const std::int64_t word : words) reals.push_back(std::bit_cast<double>(word));
  return reals;
}

HistoryWords to_words(const std::vector<double>& reals) {
  HistoryWords words;
  words.reserve(reals.size());
  for (const double number : reals) words.push_back(std::bit_cast<std::int64_t>(number));
  return words;
}

std::vector<std::int64_t> places_of_domains(const std::vector<std::string>& from,
                                            const std::vector<std::string>& to) {
  const auto targets = numbered(to);
  std::vector<std::int64_t> places;
  for (const auto& domain : numbered(from)) {
    const auto found = std::find(targets.begin(), targets.end(), domain);
    places.push_back(found == targets.end() ? -1 : found - targets.begin());
  }
  return places;
}

std::vector<std::string> joined_domains(const std::vector<std::string>& first,
                                        const std::vector<std::string>& second) {
  std::vector<std::string> joined = first;
  const std::vector<std::int64_t> places = places_of_domains(second, first);
  for (std::size_t i = 0; i < second.size(); ++i)
    if (places[i] < 0) joined.push_back(second[i]);
  return joined;
}

HistoryWords words_for(const HistoryShape& shape, const HistorySource& source, const HistoryColumn& column,
                       std::int64_t first, std::int64_t rows) {
  if (column.derived) {
    const HistoryWords counts = source.words(history_column("counts"), first, rows);
    return column.type == whole ? load_per_expert_rank(counts, shape.experts, shape.expert_ranks)
                                : to_words(load_violations(counts, shape.experts));
  }
  HistoryWords words = source.words(column, first, rows);
  if (!column.by_domain || source.shape().domains == shape.domains) return words;
  const std::vector<std::int64_t> places = places_of_domains(source.shape().domains, shape.domains);
  const auto domains = static_cast<std::int64_t>(shape.domains.size());
  const std::int64_t block = domains > 0 ? row_elements(column, shape) / domains : 0;
  HistoryWords result(static_cast<std::size_t>(rows * domains * block), missing_word(column));
  auto next = words.begin();
  for (std::int64_t row = 0; row < rows; ++row)
    for (const std::int64_t place : places) {
      if (place >= 0) std::copy_n(next, block, result.begin() + (row * domains + place) * block);
      next += block;
    }
  return result;
}

WaitingRows::WaitingRows(HistoryShape shape) : shape_(std::move(shape)), columns_(columns.size()) {}

std::int64_t WaitingRows::size(HistoryRows rows) const {
  return static_cast<std::int64_t>(
      columns_[index_of(history_column(rows == HistoryRows::steps ? "step" : "evaluation/step"))].size());
}

HistoryWords WaitingRows::words(const HistoryColumn& column, std::int64_t first, std::int64_t rows) const {
  const std::int64_t width = row_elements(column, shape_);
  const HistoryWords& all = columns_[index_of(column)];
  return {all.begin() + first * width, all.begin() + (first + rows) * width};
}

void WaitingRows::add(const std::string& column, const HistoryWords& words) {
  HistoryWords& all = columns_[index_of(history_column(column))];
  all.insert(all.end(), words.begin(), words.end());
}

std::size_t WaitingRows::bytes() const {
  std::size_t words = 0;
  for (const HistoryWords& column : columns_) words += column.size();
  return words * sizeof(std::int64_t);
}

void WaitingRows::drop(std::int64_t steps) {
  steps = std::min(steps, size(HistoryRows::steps));
  if (steps == 0) return;
  const std::int64_t last = this->steps()[static_cast<std::size_t>(steps - 1)];
  const HistoryWords& evaluated = columns_[index_of(history_column("evaluation/step"))];
  const std::int64_t evaluations =
      std::upper_bound(evaluated.begin(), evaluated.end(), last) - evaluated.begin();
  for (const HistoryColumn& column : columns) {
    HistoryWords& all = columns_[index_of(column)];
    if (column.derived) continue;
    const std::int64_t rows = column.rows == HistoryRows::steps ? steps : evaluations;
    all.erase(all.begin(), all.begin() + rows * row_elements(column, shape_));
  }
}

void WaitingRows::clear() {
  for (HistoryWords& column : columns_) column.clear();
}

}  // namespace conclave
