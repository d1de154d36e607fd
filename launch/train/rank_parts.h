// Each rank writes a part of a run's tensors. Ranks that hold the same elements share the work, so that
// replicated data is written once and every rank writes about as much. And in reverse, each rank reads its
// own elements, whatever layout wrote them. It is single-process arithmetic over the mesh; nothing is sent.
#pragma once

#include <string>
#include <vector>

#include "framework/store/checkpoint_file.h"
#include "launch/train/recipe.h"
#include "optim/optimizer.h"

namespace conclave {

/// A checkpoint whose parameters come from an imported model has this attribute: what that model said of
/// itself (launch/tools/convert/source_facts.h). A run hands it on unread.
constexpr const char* source_attribute = "source";

ElementType element_type(DType dtype);
Dims dims_of(const Shape& shape);

/// A RankPart is what this rank writes of one tensor.
struct RankPart {
  Piece piece;
  Tensor values;  // [elements of the piece], sharing memory with what trains; undefined when it has none
};

/// A Share is a run of flat elements.
struct Share {
  std::int64_t begin = 0, count = 0;
};

/// Returns the share that `rank` writes of `elements` that `holders` (ascending ranks) hold alike. There are
/// as many equal shares as holders, but none below `least` elements; `turn` says which holder takes the
/// first. The shares of all holders are disjoint and cover everything.
Share share_of(std::int64_t elements, std::int64_t least, const std::vector<std::int64_t>& holders,
               std::int64_t rank, std::int64_t turn);

/// Returns the parts of every parameter's values, under model/NAME.
std::vector<RankPart> parts_of_values(const ParameterSet& parameters, std::int64_t least_share_bytes);

/// Returns the group of a checkpoint's tensors that are this state of the optimizer, one of each parameter.
std::string group_of(const NamedState& state);

/// Returns the parts of an optimizer's state, under optimizer/STATE/NAME. Frozen parameters have none: those
/// tensors are written as zeros.
std::vector<RankPart> parts_of_state(const NamedState& state, const ParameterSet& parameters,
                                     const GradientReducer& reducer, std::int64_t least_share_bytes);

/// A group has tensors of a checkpoint, one of each parameter, GROUP/NAME.
struct TensorGroup {
  std::string name;
  DType dtype;
};

/// Throws Fault::data where names, types or shapes of these groups do not match the parameters. It names the
/// keys in which the checkpoint's recipe differs from `wanted`, and the first tensors that do not fit.
void check_fits(const CheckpointReader& checkpoint, const std::vector<TensorGroup>& groups,
                const ParameterSet& parameters, const ModelRecipe* wanted = nullptr);

/// Throws Fault::request where the checkpoint comes from an optimizer with other states.
void check_optimizer(const CheckpointReader& checkpoint, const std::string& kind,
                     const std::vector<NamedState>& states);

/// These two read this rank's part of every parameter, and of every state, after check_fits.
void read_values(const CheckpointReader& checkpoint, ParameterSet& parameters);
void read_state(const CheckpointReader& checkpoint, const NamedState& state, const GradientReducer& reducer);

}  // namespace conclave
