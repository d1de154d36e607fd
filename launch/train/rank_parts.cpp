#include "launch/train/rank_parts.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "framework/base/text.h"
#include "framework/recipe/nearest.h"
#include "launch/train/model.h"
#include "launch/train/recipe_text.h"

namespace conclave {
namespace {

constexpr const char* optimizer_group = "optimizer";  // of a checkpoint's tensors

bool holds_the_same(const MeshLayout& layout, std::int64_t a, std::int64_t b, const Placement& placement) {
  return std::all_of(placement.cuts.begin(), placement.cuts.end(), [&](const Cut& cut) {
    return layout.coordinate(a, cut.axis) == layout.coordinate(b, cut.axis);
  });
}

/// The ranks with the same part of a parameter; of those, where states are sharded over the replicas, the
/// ones that own the same elements of it.
std::vector<std::int64_t> holders_of(const ParameterSet& parameters, const Placement& placement,
                                     bool states_sharded) {
  const MeshLayout& layout = parameters.layout();
  const std::int64_t self = parameters.rank();
  std::vector<std::int64_t> holders;
  for (std::int64_t rank = 0; rank < layout.ranks(); ++rank)
    if (holds_the_same(layout, rank, self, placement) &&
        (!states_sharded ||
         layout.coordinate(rank, placement.replicas) == layout.coordinate(self, placement.replicas)))
      holders.push_back(rank);
  return holders;
}

/// Elements begin .. begin + count - 1 of a parameter's part on this rank.
std::vector<Box> boxes_of(const Parameter& parameter, std::int64_t begin, std::int64_t count) {
  return moved(boxes_of_range(dims_of(parameter.shape), begin, count), dims_of(parameter.origin));
}

Piece piece_of(const std::string& group, const Parameter& parameter, DType dtype) {
  return {group + "/" + parameter.name, element_type(dtype), dims_of(parameter.global_shape), {}};
}

void read_boxes(const CheckpointReader& checkpoint, const std::string& name, const std::vector<Box>& boxes,
                const Tensor& values) {
  std::vector<std::byte> host(values.bytes());
  std::size_t at = 0;
  for (const Box& box : boxes) {
    checkpoint.read_box(name, element_type(values.dtype()), box, host.data() + at);
    at += static_cast<std::size_t>(element_count(box)) * element_bytes(values.dtype());
  }
  values.device().copy_from_host(values.raw(), host.data(), host.size());
}

/// A line for each key of the model in which the checkpoint's own recipe differs.
std::string model_changes(const CheckpointReader& checkpoint, const ModelRecipe& wanted) {
  if (!checkpoint.has("recipe")) return "";
  std::string lines;
  const Recipe before = recipe_of(checkpoint);
  Recipe after = before;
  after.model = wanted;
  for (const KeyChange& change : changes_between(before, after))
    lines += join_text("\n  ", change.key, ": ", change_text(change));
  return lines;
}

}  // namespace

ElementType element_type(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return ElementType::float32;
    case DType::float64:
      return ElementType::float64;
    case DType::int32:
      return ElementType::int32;
    case DType::int64:
      return ElementType::int64;
    case DType::bfloat16:
      break;  // checkpoints hold master weights
  }
  fail(Fault::internal, "element_type: checkpoints hold no tensors of ", name_of(dtype));
}

Dims dims_of(const Shape& shape) {
  Dims dims;
  for (int dim = 0; dim < shape.dims(); ++dim) dims.push_back(shape[dim]);
  return dims;
}

Share share_of(std::int64_t elements, std::int64_t least, const std::vector<std::int64_t>& holders,
               std::int64_t rank, std::int64_t turn) {
  const auto ranks = static_cast<std::int64_t>(holders.size());
  const std::int64_t place = std::find(holders.begin(), holders.end(), rank) - holders.begin();
  const std::int64_t shares = std::clamp<std::int64_t>(elements / std::max<std::int64_t>(least, 1), 1, ranks);
  const std::int64_t share = (place + ranks - turn % ranks) % ranks;
  if (share >= shares) return {};
  const std::int64_t begin = elements * share / shares, end = elements * (share + 1) / shares;
  return {begin, end - begin};
}

std::vector<RankPart> parts_of_values(const ParameterSet& parameters, std::int64_t least_share_bytes) {
  std::vector<RankPart> parts;
  const DType dtype = parameters.values().dtype();
  const std::int64_t least = least_share_bytes / static_cast<std::int64_t>(element_bytes(dtype));
  std::int64_t turn = 0;  // the first holder of one parameter, the second of the next: small ones spread too
  for (const Parameter& parameter : parameters.all()) {
    RankPart part{piece_of("model", parameter, dtype), {}};
    const Share share =
        share_of(parameter.shape.elements(), least, holders_of(parameters, parameter.placement, false),
                 parameters.rank(), turn++);
    if (share.count > 0) {
      part.piece.boxes = boxes_of(parameter, share.begin, share.count);
      part.values = parameters.values().part(parameter.offset + share.begin, {share.count});
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

std::string group_of(const NamedState& state) {
  return optimizer_group + ("/" + state.name);
}

std::vector<RankPart> parts_of_state(const NamedState& state, const ParameterSet& parameters,
                                     const GradientReducer& reducer, std::int64_t least_share_bytes) {
  const std::string group = group_of(state);
  std::map<const Parameter*, const OwnedSpan*> owned;
  for (const OwnedSpan& span : reducer.owned()) {
    check(owned.emplace(span.parameter, &span).second, "parts_of_state: two spans of ", span.parameter->name);
  }
  std::vector<RankPart> parts;
  const DType dtype = state.values.dtype();
  const std::int64_t least = least_share_bytes / static_cast<std::int64_t>(element_bytes(dtype));
  std::int64_t turn = 0;
  for (const Parameter& parameter : parameters.all()) {
    RankPart part{piece_of(group, parameter, dtype), {}};
    const auto found = owned.find(&parameter);
    if (found != owned.end()) {
      const OwnedSpan& span = *found->second;
      const Share share =
          share_of(span.elements, least, holders_of(parameters, parameter.placement, reducer.shards_states()),
                   parameters.rank(), turn);
      if (share.count > 0) {
        part.piece.boxes = boxes_of(parameter, span.offset - parameter.offset + share.begin, share.count);
        part.values = state.values.part(span.state_offset + share.begin, {share.count});
      }
    }
    ++turn;
    parts.push_back(std::move(part));
  }
  return parts;
}

void check_fits(const CheckpointReader& checkpoint, const std::vector<TensorGroup>& groups,
                const ParameterSet& parameters, const ModelRecipe* wanted) {
  constexpr std::size_t most_named = 5;
  std::vector<std::string> wrong;
  for (const TensorGroup& group : groups) {
    const std::vector<std::string> names = checkpoint.names(group.name);
    std::set<std::string> unused(names.begin(), names.end());
    for (const Parameter& parameter : parameters.all()) {
      const std::string name = group.name + "/" + parameter.name;
      if (unused.erase(name) == 0) {
        wrong.push_back(name + " is missing");
        continue;
      }
      const DatasetInfo info = checkpoint.describe(name);
      if (info.dims != dims_of(parameter.global_shape) || info.type != element_type(group.dtype))
        wrong.push_back(join_text(name, " is ", element_name(info.type), " ", dims_text(info.dims),
                                  ", expected ", name_of(group.dtype), " ", parameter.global_shape));
    }
    for (const std::string& name : unused) wrong.push_back(name + " is not in the model");
  }
  if (wrong.empty()) return;
  std::string lines = wanted ? model_changes(checkpoint, *wanted) : "";
  for (std::size_t i = 0; i < std::min(most_named, wrong.size()); ++i) lines += "\n  " + wrong[i];
  if (wrong.size() > most_named)
    lines += "\n  and " + counted(static_cast<std::int64_t>(wrong.size() - most_named), "other tensor");
  fail(Fault::data, checkpoint.path().string(), " does not fit the recipe's model:", lines);
}

void check_optimizer(const CheckpointReader& checkpoint, const std::string& kind,
                     const std::vector<NamedState>& states) {
  std::set<std::string> stored, expected;
  for (const std::string& name : checkpoint.names(optimizer_group)) {
    const std::size_t begin = std::strlen(optimizer_group) + 1;
    stored.insert(name.substr(begin, name.find('/', begin) - begin));
  }
  for (const NamedState& state : states) expected.insert(state.name);
  const auto words = [](const std::set<std::string>& names) {
    return names.empty() ? "nothing" : join_words({names.begin(), names.end()});
  };
  check(stored.empty() || stored == expected, Fault::request, "optimizer.kind: ", kind, " came, which keeps ",
        words(expected), ", but the optimizer of ", checkpoint.path().string(), " kept ", words(stored),
        ". Put the old kind back, or begin a new run that takes the parameters alone: "
        "checkpoint.initialize_from with checkpoint.take=[parameters].");
}

void read_values(const CheckpointReader& checkpoint, ParameterSet& parameters) {
  for (const Parameter& parameter : parameters.all())
    read_boxes(checkpoint, "model/" + parameter.name, {{dims_of(parameter.origin), dims_of(parameter.shape)}},
               parameters.values().part(parameter.offset, {parameter.shape.elements()}));
  parameters.round_values();
}

void read_state(const CheckpointReader& checkpoint, const NamedState& state, const GradientReducer& reducer) {
  const std::string group = group_of(state);
  for (const OwnedSpan& span : reducer.owned())
    read_boxes(checkpoint, group + "/" + span.parameter->name,
               boxes_of(*span.parameter, span.offset - span.parameter->offset, span.elements),
               state.values.part(span.state_offset, {span.elements}));
}

}  // namespace conclave
