// Mesh: the ranks of a job as named axes. Attention and experts fold the same ranks differently:
//   attention   rank = ((pipeline * data        + data)        * context + context) * tensor        + tensor
//   experts     rank = ((pipeline * expert_data + expert_data) * expert  + expert)  * expert_tensor +
//   expert_tensor
// MeshLayout is the arithmetic alone, for planning without the ranks; Mesh adds a communicator for every
// axis.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace conclave {

/// The last two axes are folds of others. The axis data_tensor has all ranks of a stage, which together hold
/// every token once where tokens are sharded over tensor ranks. The axis expert_group has the expert x
/// expert_tensor ranks that hold one copy of all experts.
enum class Axis {
  data,
  expert,
  tensor,
  expert_tensor,
  pipeline,
  context,
  expert_data,
  data_tensor,
  expert_group
};
constexpr int axes = 9;
const char* name_of(Axis axis);

/// A user chooses these degrees. The axis data takes the ranks that remain beside tensor, and expert_data
/// takes those beside the experts' axes.
struct MeshDegrees {
  std::int64_t tensor = 1;
  std::int64_t expert = 1;
  std::int64_t expert_tensor = 1;
  std::int64_t context = 1;
  std::int64_t pipeline = 1;
};

class MeshLayout {
 public:
  /// Throws Fault::request with the numbers when these degrees cannot be folded over these ranks.
  MeshLayout(std::int64_t ranks, MeshDegrees degrees);

  std::int64_t ranks() const { return ranks_; }
  std::int64_t degree(Axis axis) const { return at(axis).degree; }
  /// Says where a rank stands on an axis.
  std::int64_t coordinate(std::int64_t rank, Axis axis) const {
    return rank / at(axis).stride % at(axis).degree;
  }
  /// Returns the lowest rank of its group along an axis, which names the group.
  std::int64_t first_rank(std::int64_t rank, Axis axis) const {
    return rank - coordinate(rank, axis) * at(axis).stride;
  }
  /// Returns all ranks of its group along an axis, in the order of their coordinates.
  std::vector<std::int64_t> group(std::int64_t rank, Axis axis) const;

 private:
  struct Fold {
    std::int64_t degree = 1;
    std::int64_t stride = 1;  // between ranks that are neighbours on this axis
  };
  const Fold& at(Axis axis) const { return folds_[static_cast<std::size_t>(axis)]; }
  void fold(std::array<Axis, 4> fastest_first, std::array<std::int64_t, 4> degrees);

  std::int64_t ranks_;
  std::array<Fold, axes> folds_;
};

class Mesh {
 public:
  /// The constructor is collective over `world`.
  Mesh(std::shared_ptr<Communicator> world, MeshDegrees degrees);

  /// Returns the mesh of one rank.
  static const Mesh& alone();

  const MeshLayout& layout() const { return layout_; }
  Communicator& world() const { return *world_; }
  /// Returns the ranks that differ from this one on this axis only; rank() is the coordinate.
  Communicator& axis(Axis axis) const { return *communicators_[static_cast<std::size_t>(axis)]; }

 private:
  std::shared_ptr<Communicator> world_;
  MeshLayout layout_;
  std::array<std::shared_ptr<Communicator>, axes> communicators_;
};

}  // namespace conclave
