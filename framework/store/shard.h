// Shards are the parts of a checkpoint's tensors that one rank writes, in a file of its own (rank-00000.h5).
// In the index (index.h5) all shards appear as whole tensors. Both are composed in memory, where no disk can
// fail under HDF5; checkpoint_protocol.h writes their bytes.
//
// A shard file begins with a table in plain text, which HDF5 skips as the file's user block. It has for each
// piece the XXH3 checksum, the offset of the first byte, the bytes and the name. So damage can be named
// without asking HDF5 to read a damaged file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "framework/store/hdf5_file.h"

namespace conclave {

/// A run of elements of one tensor that one rank writes.
struct Piece {
  std::string name;  // of the tensor: GROUP/NAME
  ElementType type = ElementType::float32;
  Dims dims;               // of the whole tensor, at least one
  std::vector<Box> boxes;  // of the whole tensor; the piece holds their elements, box after box; may be none
  std::int64_t elements() const;
  bool operator==(const Piece&) const = default;
};

/// Pieces as text, to be sent to other ranks, and back.
std::string to_text(const std::vector<Piece>& pieces);
std::vector<Piece> pieces_from_text(const std::string& text);

/// rank-00003.h5
std::string shard_name(std::int64_t rank);

/// The file of one rank's pieces, in memory. It is laid out once, and filled before each save.
class ShardImage {
 public:
  /// The names of the pieces must differ.
  explicit ShardImage(const std::vector<Piece>& pieces);

  /// The address for the elements of a piece; null when it has none.
  void* data(std::size_t piece);
  /// Writes checksums of the filled elements into the table. It touches nothing but memory.
  void seal();
  std::span<const std::byte> bytes() const { return image_.bytes(); }
  /// seal() writes the first so many bytes.
  std::size_t table_bytes() const { return table_room_; }

 private:
  struct Place {
    std::string name;
    std::size_t offset, bytes;
  };
  std::vector<Place> places_;  // [pieces]
  std::size_t table_room_;     // bytes of the user block
  FileImage image_;
};

/// The datasets of a shard file whose content differs from the table's checksums, in one clause each, at most
/// three. Empty when none differs, or when the table itself is damaged.
std::string damaged_pieces(const std::filesystem::path& shard);

using Attribute = std::variant<std::int64_t, double, std::string>;
using Attributes = std::map<std::string, Attribute>;

/// index.h5: every tensor whole, as a virtual dataset over the shards. An element that no rank has a piece
/// of, or two have, is a Fault::internal. A tensor of which no rank has any element reads as zeros.
FileImage compose_index(const std::vector<std::vector<Piece>>& pieces_of_ranks, const Attributes& attributes);

}  // namespace conclave
