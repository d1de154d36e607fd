#include "parallel/ownership.h"

#include <algorithm>

namespace conclave {

std::int64_t matrix_elements(const Parameter& parameter) {
  const Shape& shape = parameter.shape;
  std::int64_t elements = 1;
  for (int dim = std::max(shape.dims() - 2, 0); dim < shape.dims(); ++dim) elements *= shape[dim];
  return elements;
}

std::vector<OwnedMatrix> matrices_of(const OwnedSpan& span) {
  const Parameter& parameter = *span.parameter;
  const std::int64_t size = matrix_elements(parameter), first = span.offset - parameter.offset;
  check(first % size == 0 && span.elements % size == 0, "matrices_of: a rank owns elements ", first, " to ",
        first + span.elements, " of ", parameter.name, " ", parameter.shape,
        ", which are no whole matrices; ", "the reducer was expected to be given OwnedUnit::matrix for it");
  const std::int64_t columns = parameter.shape[parameter.shape.dims() - 1];
  std::vector<OwnedMatrix> matrices;
  for (std::int64_t begin = 0; begin < span.elements; begin += size)
    matrices.push_back(
        {&parameter, {size / columns, columns}, span.offset + begin, span.state_offset + begin});
  return matrices;
}

std::vector<MatrixRun> deal_matrices(const std::vector<const Parameter*>& parameters, int replicas) {
  std::int64_t total = 0, before = 0;
  for (const Parameter* parameter : parameters) total += parameter->shape.elements();
  std::vector<MatrixRun> runs;
  for (const Parameter* parameter : parameters) {
    const std::int64_t size = matrix_elements(*parameter);
    for (std::int64_t begin = 0; begin < parameter->shape.elements(); begin += size, before += size) {
      // The replica in whose even stretch of all elements the matrix has its middle.
      const auto owner = static_cast<int>((2 * before + size) * replicas / (2 * total));
      const std::int64_t offset = parameter->offset + begin;
      if (!runs.empty() && runs.back().parameter == parameter && runs.back().owner == owner)
        runs.back().elements += size;
      else
        runs.push_back({parameter, owner, offset, size});
    }
  }
  return runs;
}

}  // namespace conclave
