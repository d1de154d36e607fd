// HistoryFile is a file with rows of experts.h5. It is one segment of it, or an experts.h5 of an earlier
// version that has all rows in itself. The function compose_segment writes a segment.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "framework/store/history_rows.h"
#include "framework/store/manifest.h"

namespace conclave {

/// Write and read the shape as attributes of a file's root; an impossible shape is a Fault::data.
void write_shape(Hdf5File& file, const HistoryShape& shape);
HistoryShape read_shape(const Hdf5File& file, const std::filesystem::path& path);

/// HistorySize says how many rows of a file count.
struct HistorySize {
  std::int64_t steps = 0, evaluations = 0;
  std::int64_t of(HistoryRows rows) const { return rows == HistoryRows::steps ? steps : evaluations; }
  bool operator==(const HistorySize&) const = default;
};

class HistoryFile final : public HistorySource {
 public:
  /// Fault::data where a dataset is missing or has other dims than the file's own shape says.
  explicit HistoryFile(const std::filesystem::path& path);

  const HistoryShape& shape() const override { return shape_; }
  std::int64_t size(HistoryRows rows) const override { return used_.of(rows); }
  HistoryWords words(const HistoryColumn& column, std::int64_t first, std::int64_t rows) const override;

  /// Rows that are there, whether they count or not.
  const HistorySize& there() const { return there_; }
  /// From now on only so many rows from the file's start count.
  void use(const HistorySize& size);
  /// The rows whose step is at most this one.
  HistorySize up_to(std::int64_t step) const;
  bool has(const HistoryColumn& column) const { return file_.contains(column.name); }

 private:
  void check_column(const HistoryColumn& column) const;

  std::filesystem::path path_;
  Hdf5File file_;
  HistoryShape shape_;
  HistorySize there_, used_;
};

/// Writes a file with the rows of all sources, one after the other, whole and durably under its name. A file
/// that could not be written leaves nothing. It is composed in memory, where no disk can fail under HDF5.
FileEntry compose_segment(const std::filesystem::path& path, const HistoryShape& shape,
                          const std::vector<const HistorySource*>& sources);

}  // namespace conclave
