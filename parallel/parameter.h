// Parameter: a named weight, how it is cut over the mesh, its gradient, and how it starts. ParameterSet keeps
// all of a model's parameters of this rank in one flat buffer, and their gradients in another. Gradient
// reduction and the optimizer see spans of these buffers, never layers. A model that computes in bfloat16
// keeps the two in float32 (master weights, Micikevicius et al., arXiv 1710.03740), and a rounded copy that
// ops read.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "framework/autograd/tape.h"
#include "parallel/mesh.h"

namespace conclave {

struct Initializer {
  enum class Kind { normal, ones, zeros, constant } kind = Kind::normal;
  double standard_deviation = 0.02;
  double value = 0;  // of a constant
};

/// Ops see a weight in the type that the model computes in, or in its full precision. The two differ for
/// bfloat16 alone. Routers take the full precision, because rounding scores would make ties.
enum class Precision { compute, full };

/// Says whether weight decay applies: matrices decay, norms and biases do not.
enum class Decay { yes, no };

/// A Cut names a dim that is cut into equal parts, one for each rank of an axis in the order of its
/// coordinates.
struct Cut {
  int dim;
  Axis axis;
};

/// A Placement says where a parameter lives.
struct Placement {
  std::vector<Cut> cuts{};     // none: every rank holds it whole
  Axis replicas = Axis::data;  // data, data_tensor or expert_data: ranks that hold the same part, and whose
                               // gradients of it, sums over different tokens, are added up
};

struct Parameter {
  std::string name;    // Hugging Face's, see layers/transformer.h
  Shape global_shape;  // of the whole parameter
  Shape shape;         // of this rank's part
  Shape origin;        // global index of this part's first element, dim by dim
  Placement placement;
  Initializer initializer;
  Decay decay = Decay::yes;
  Precision precision = Precision::compute;
  bool frozen = false;
  std::int64_t offset = 0;  // first element in the flat buffers
  Tensor value;             // what ops read
  Gradient gradient;        // in the type of the flat buffers

  /// Gives the parameter as an op's input. Its first use on the tape is marked so that its gradient's
  /// completion is known.
  Variable use(Tape& tape) const {
    if (frozen) return {value, {}};
    tape.watch(gradient);
    return {value, gradient};
  }
};

class ParameterSet {
 public:
  /// Makes the set of a job of one rank.
  ParameterSet() : ParameterSet(MeshLayout(1, {}), 0) {}
  ParameterSet(const MeshLayout& layout, std::int64_t rank) : layout_(layout), rank_(rank) {}

  /// Adds a parameter; the reference stays good. Memory comes with materialize(). A dim that its axis does
  /// not divide is a Fault::request.
  Parameter& create(const std::string& name, Shape global_shape, Initializer initializer, Decay decay,
                    const Placement& placement = {}, Precision precision = Precision::compute);

  /// Takes memory for this rank's parts and their gradients and draws the initial values. An element is a
  /// pure function of (seed, name, its index in the whole parameter), whatever the layout. `compute` is the
  /// type that ops read; values and gradients are kept in its sum_type.
  void materialize(DType compute, std::uint64_t seed, Device& device = cpu_device());
  /// Rounds the values again into what ops read, after values() changed.
  void round_values();

  std::deque<Parameter>& all() { return parameters_; }
  const std::deque<Parameter>& all() const { return parameters_; }
  const Parameter& find(std::string_view name) const;
  const MeshLayout& layout() const { return layout_; }
  std::int64_t rank() const { return rank_; }

  /// The flat buffers [elements] hold parameters of equal replicas side by side. Each parameter begins at a
  /// multiple of 16 x (their number), so that any run of them divides over the replicas. Gaps stay zero.
  std::int64_t elements() const { return values_.defined() ? values_.elements() : 0; }
  const Tensor& values() const { return values_; }
  const Tensor& gradients() const { return gradients_; }
  /// Returns the number of elements that a parameter takes in the flat buffers, its gap included.
  std::int64_t room_of(const Parameter& parameter) const;
  void clear_gradients();

 private:
  MeshLayout layout_;
  std::int64_t rank_;
  std::deque<Parameter> parameters_;
  std::unordered_set<std::string> names_;
  Tensor values_, gradients_;
  Tensor rounded_;  // of values_, where ops read another type
};

}  // namespace conclave
