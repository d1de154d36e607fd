// DataPosition says how far a run is in its training text, as its checkpoints keep it. It holds how many
// sequences each dataset has given, and where the mixture's schedule stands. A dataset is known by the
// checksum of its .idx, so that lists may be reordered and files may move.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "framework/data/recipe.h"

namespace conclave {

struct DatasetPosition {
  std::string index_checksum;  // of the .idx; empty: not known
  std::string path;            // PREFIX, when it was last used
  std::string domain;          // with `shard` the key of its order, as at its first use
  std::int64_t shard = 0;      // counts the datasets of that domain
  std::int64_t drawn = 0;      // sequences it has given, over all passes
  std::int64_t share = 0;      // in the mixture's schedule; 0: not in the list any more
  bool operator==(const DatasetPosition&) const = default;
};

struct DataPosition {
  std::int64_t sequence_length = 0;       // the unit of `drawn`, in tokens
  std::int64_t domain_block = 0;          // sequences in a block of the schedule
  std::int64_t blocks = 0;                // that the schedule has handed out
  std::vector<DatasetPosition> datasets;  // those of the list in its order, then those that left it
  bool operator==(const DataPosition&) const = default;
};

/// A position as JSON, and back. Other JSON is a Fault::data in which `source` says where it stands.
std::string to_json(const DataPosition& position);
DataPosition parse_data_position(const std::string& json, const std::string& source);

/// The position of a run that has drawn so many sequences by this recipe alone; checkpoints without a
/// position say no more. Checksums are those that the files have now, where they still lie.
DataPosition implied_position(const DataRecipe& data, std::int64_t sequences);

/// Finds for each listed dataset the known one that it is. Equal checksums are the same text. Path and domain
/// decide where several datasets have the same checksum, and where none was kept.
std::vector<std::optional<std::size_t>> match_datasets(const std::vector<DatasetPosition>& known,
                                                       const std::vector<DatasetPosition>& listed);

/// The position of a list that goes on where another one ended. It is `listed`, in which nothing is drawn
/// yet, with the counts and orders of `before`, followed by the datasets that left the list. Its schedule
/// goes on only where both are the same. Other sequence lengths are converted: as many tokens, rounded up to
/// a whole sequence.
DataPosition carry_over(const DataPosition& before, const DataPosition& listed);

/// Shows what became of the datasets of a position in a new list.
struct DatasetChanges {
  std::vector<std::size_t> added;      // index in the list: a text that was never drawn from
  std::vector<std::size_t> rewritten;  // those of them whose path held another text before
  std::vector<std::size_t> left;       // index in the position: in the list no more
};
DatasetChanges compare_datasets(const std::vector<DatasetPosition>& known,
                                const std::vector<DatasetPosition>& listed);

}  // namespace conclave
