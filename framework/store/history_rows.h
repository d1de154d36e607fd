// The rows of experts.h5: its datasets as columns, and the sources of rows. Steps and evaluations have rows
// of their own. All elements have eight bytes, so rows travel as words, whichever type they have.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "framework/store/hdf5_file.h"

namespace conclave {

/// The sizes and names that all rows of a file agree on.
struct HistoryShape {
  std::int64_t layers = 0, experts = 0;  // layers: those with experts
  std::int64_t expert_ranks = 1;
  std::vector<std::string> domains;  // of the evaluations
};

enum class HistoryRows { steps, evaluations };

/// One dataset of experts.h5.
struct HistoryColumn {
  const char* name;
  ElementType type;  // int64 or float64
  HistoryRows rows;
  Dims (*row_dims)(const HistoryShape& shape);
  bool by_domain = false;  // the first of row_dims
  bool derived = false;    // from the counts
  bool optional = false;   // files of earlier versions may lack it
};

/// All columns, in the order in which a file has them.
std::span<const HistoryColumn> history_columns();
const HistoryColumn& history_column(std::string_view name);

using HistoryWords = std::vector<std::int64_t>;

/// Elements of one row.
std::int64_t row_elements(const HistoryColumn& column, const HistoryShape& shape);
/// The word where nothing is known: -1 or NaN.
std::int64_t missing_word(const HistoryColumn& column);
std::vector<double> to_reals(const HistoryWords& words);
HistoryWords to_words(const std::vector<double>& reals);

/// The place in `to` of each domain of `from`; -1: nowhere. A name that is there several times counts by its
/// place among its equals.
std::vector<std::int64_t> places_of_domains(const std::vector<std::string>& from,
                                            const std::vector<std::string>& to);
/// The domains of `first`, and behind them those of `second` that it lacks.
std::vector<std::string> joined_domains(const std::vector<std::string>& first,
                                        const std::vector<std::string>& second);

/// A HistorySource is where rows come from: a file, or memory.
class HistorySource {
 public:
  virtual ~HistorySource() = default;
  virtual const HistoryShape& shape() const = 0;
  virtual std::int64_t size(HistoryRows rows) const = 0;
  /// Some rows of a column that is not derived, in this source's own shape; missing words where it has none.
  virtual HistoryWords words(const HistoryColumn& column, std::int64_t first, std::int64_t rows) const = 0;
};

/// Words of any column, as a file of another shape has them: domains in its order, loads of its ranks.
HistoryWords words_for(const HistoryShape& shape, const HistorySource& source, const HistoryColumn& column,
                       std::int64_t first, std::int64_t rows);

/// Some rows of another source, which must live longer.
class PartOfRows final : public HistorySource {
 public:
  struct Range {
    std::int64_t first = 0, size = 0;
  };
  PartOfRows(const HistorySource& source, Range steps, Range evaluations)
      : source_(source), steps_(steps), evaluations_(evaluations) {}
  const HistoryShape& shape() const override { return source_.shape(); }
  std::int64_t size(HistoryRows rows) const override { return range(rows).size; }
  HistoryWords words(const HistoryColumn& column, std::int64_t first, std::int64_t rows) const override {
    return source_.words(column, range(column.rows).first + first, rows);
  }

 private:
  const Range& range(HistoryRows rows) const { return rows == HistoryRows::steps ? steps_ : evaluations_; }
  const HistorySource& source_;
  Range steps_, evaluations_;
};

/// Rows that are not in a file yet.
class WaitingRows final : public HistorySource {
 public:
  explicit WaitingRows(HistoryShape shape);
  const HistoryShape& shape() const override { return shape_; }
  std::int64_t size(HistoryRows rows) const override;
  HistoryWords words(const HistoryColumn& column, std::int64_t first, std::int64_t rows) const override;

  /// Adds a part of a row that follows the last one; the columns of a row come one by one.
  void add(const std::string& column, const HistoryWords& words);
  bool empty() const { return size(HistoryRows::steps) == 0 && size(HistoryRows::evaluations) == 0; }
  std::size_t bytes() const;
  /// Forgets the first rows, and the evaluations that belong to them.
  void drop(std::int64_t steps);
  void clear();
  const HistoryWords& steps() const { return columns_[0]; }

 private:
  HistoryShape shape_;
  std::vector<HistoryWords> columns_;  // as history_columns()
};

}  // namespace conclave
