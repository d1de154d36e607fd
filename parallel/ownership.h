// Ownership says which elements a rank updates and keeps optimizer states of. Where states are sharded over
// the replicas, each replica owns an even part of every bucket, or whole matrices, as the optimizer needs.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "parallel/parameter.h"

namespace conclave {

/// The unit is never divided between two replicas: a single element, or a matrix. A parameter of three dims
/// is a stack of matrices [matrices, rows, columns]; one of a single dim counts as one matrix.
enum class OwnedUnit { element, matrix };

/// Gives the unit of each parameter; where it is empty, units are elements.
using OwnedUnitOf = std::function<OwnedUnit(const Parameter&)>;

/// A span has the elements of one parameter whose optimizer state this rank keeps. There is at most one span
/// of a parameter.
struct OwnedSpan {
  const Parameter* parameter;
  std::int64_t offset;  // first element in ParameterSet's flat buffers
  std::int64_t elements;
  std::int64_t state_offset;  // first element in a buffer of GradientReducer::owned_elements()
};

/// This is a matrix of this rank's part of a parameter. A cut over a tensor axis leaves a rank a part of the
/// matrix, as Placement::cuts says.
struct OwnedMatrix {
  const Parameter* parameter;
  Shape shape;  // [rows, columns]; [1, elements] for a parameter of one dim
  std::int64_t offset, state_offset;
};

/// Returns a parameter's number of elements that stay together.
std::int64_t matrix_elements(const Parameter& parameter);

/// Returns the matrices of a span. Throws Fault::internal where the span begins or ends within one.
std::vector<OwnedMatrix> matrices_of(const OwnedSpan& span);

/// A run has neighbouring matrices of one parameter that one replica owns, in the flat buffers.
struct MatrixRun {
  const Parameter* parameter;
  int owner;  // a rank of the replicas' communicator
  std::int64_t offset, elements;
};

/// Deals whole matrices to the replicas: each matrix to one, and to each replica one stretch of the list. No
/// replica gets more than an even share and one matrix. The result is a pure function of the shapes.
std::vector<MatrixRun> deal_matrices(const std::vector<const Parameter*>& parameters, int replicas);

}  // namespace conclave
