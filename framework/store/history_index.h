// experts.h5 itself is an index in which the rows of all segments appear as whole datasets. The segments are
// the files experts/segment-........h5 beside it. HDF5 reads a missing segment as missing values and says
// nothing. So the index also has a table with the size and the checksum of each, and readers of Conclave
// verify it.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "framework/store/history_file.h"

namespace conclave {

/// A segment as the index names it.
struct HistorySegment {
  FileEntry file;
  std::int64_t level = 0;            // how often its rows have been merged with others
  HistorySize used;                  // its first rows, which count
  HistorySize there;                 // all rows of the file
  std::vector<std::string> domains;  // as the file has them
};

struct HistoryIndex {
  HistoryShape shape;  // of experts.h5; the domains of all segments, and maybe in another order
  std::vector<HistorySegment> segments;
};

/// The directory of the segments of an experts.h5: experts.
std::filesystem::path segments_directory(const std::filesystem::path& index);
/// segment-00000012.h5
std::string segment_name(std::int64_t number);
/// The number in the name of a segment, or of one that was being written; nothing for any other file.
std::optional<std::int64_t> segment_number(const std::string& name);

/// Puts experts.h5 in place, whole and durably.
void write_history_index(const std::filesystem::path& path, const HistoryIndex& index);

/// SegmentCheck says how closely the segments are looked at.
enum class SegmentCheck {
  sizes,    // each is there with its size
  content,  // and every byte is as it was written
};

/// Throws a Fault::data that says how the segment is missing, shortened or changed.
void verify_segment(const std::filesystem::path& index, const HistorySegment& segment, SegmentCheck depth);

/// An experts.h5 that is open for reading, with all files that its rows are in. A run may go on writing
/// meanwhile, and even remove them: an open file stays readable.
struct OpenHistory {
  HistoryIndex index;  // without segments: a file of an earlier version, which has all rows in itself
  std::vector<std::unique_ptr<HistoryFile>> files;
};

/// Fault::data where the index or a segment is missing or damaged.
OpenHistory open_history(const std::filesystem::path& path, SegmentCheck depth);

}  // namespace conclave
