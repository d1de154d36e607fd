#include "parallel/mesh.h"

namespace conclave {

const char* name_of(Axis axis) {
  switch (axis) {
    case Axis::data:
      return "data";
    case Axis::expert:
      return "expert";
    case Axis::tensor:
      return "tensor";
    case Axis::expert_tensor:
      return "expert_tensor";
    case Axis::pipeline:
      return "pipeline";
    case Axis::context:
      return "context";
    case Axis::expert_data:
      return "expert_data";
    case Axis::data_tensor:
      return "data_tensor";
    case Axis::expert_group:
      return "expert_group";
  }
  return "unknown";
}

MeshLayout::MeshLayout(std::int64_t ranks, MeshDegrees degrees) : ranks_(ranks) {
  check(ranks > 0, "MeshLayout: ", ranks, " ranks came, at least one is needed");
  const auto at_least_one = [](const char* name, std::int64_t degree) {
    check(degree >= 1, Fault::request, "parallel.", name, " is ", degree, ", expected 1 or more.");
  };
  at_least_one("tensor", degrees.tensor);
  at_least_one("expert", degrees.expert);
  at_least_one("expert_tensor", degrees.expert_tensor);
  check(degrees.context == 1 && degrees.pipeline == 1, Fault::request, "parallel.context is ",
        degrees.context, " and parallel.pipeline ", degrees.pipeline, ", both can only be 1.");
  check(ranks % degrees.tensor == 0, Fault::request, "The layout cannot be: parallel.tensor is ",
        degrees.tensor, ", which does not divide ", ranks, " ranks.");
  // Compared before they are multiplied: absurd degrees must not overflow.
  const bool experts_fit = degrees.expert <= ranks && degrees.expert_tensor <= ranks &&
                           ranks % (degrees.expert * degrees.expert_tensor) == 0;
  check(experts_fit, Fault::request, "The layout cannot be: parallel.expert ", degrees.expert,
        " times parallel.expert_tensor ", degrees.expert_tensor, " does not divide ", ranks, " ranks.");

  const std::int64_t stage = ranks / degrees.pipeline;
  fold({Axis::tensor, Axis::context, Axis::data, Axis::pipeline},
       {degrees.tensor, degrees.context, stage / (degrees.tensor * degrees.context), degrees.pipeline});
  fold({Axis::expert_tensor, Axis::expert, Axis::expert_data, Axis::pipeline},
       {degrees.expert_tensor, degrees.expert, stage / (degrees.expert * degrees.expert_tensor),
        degrees.pipeline});
  folds_[static_cast<std::size_t>(Axis::data_tensor)] = {stage, 1};
  folds_[static_cast<std::size_t>(Axis::expert_group)] = {degrees.expert * degrees.expert_tensor, 1};
}

void MeshLayout::fold(std::array<Axis, 4> fastest_first, std::array<std::int64_t, 4> degrees) {
  std::int64_t stride = 1;
  for (std::size_t i = 0; i < fastest_first.size(); ++i) {
    folds_[static_cast<std::size_t>(fastest_first[i])] = {degrees[i], stride};
    stride *= degrees[i];
  }
}

std::vector<std::int64_t> MeshLayout::group(std::int64_t rank, Axis axis) const {
  std::vector<std::int64_t> members;
  for (std::int64_t i = 0; i < degree(axis); ++i)
    members.push_back(first_rank(rank, axis) + i * at(axis).stride);
  return members;
}

const Mesh& Mesh::alone() {
  static const Mesh mesh(self_communicator(), {});
  return mesh;
}

Mesh::Mesh(std::shared_ptr<Communicator> world, MeshDegrees degrees)
    : world_(std::move(world)), layout_(world_->size(), degrees) {
  for (int i = 0; i < axes; ++i) {
    const Axis axis = static_cast<Axis>(i);
    // The degree is the same on all ranks, so all ranks skip the same splits.
    std::shared_ptr<Communicator>& ranks = communicators_[static_cast<std::size_t>(i)];
    if (layout_.degree(axis) == 1) {
      ranks = world_->alone(name_of(axis));
      continue;
    }
    const std::vector<std::int64_t> group = layout_.group(world_->rank(), axis);
    ranks = world_->split({group.begin(), group.end()}, name_of(axis));
  }
}

}  // namespace conclave
