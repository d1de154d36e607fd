// The replica check: parameters that several ranks hold must be bit-equal on all of them. Memory that lost a
// bit, a broken core or a forgotten reduction show up here long before a loss does.
#pragma once

#include "parallel/mesh.h"
#include "parallel/parameter.h"

namespace conclave {

/// Compares checksums (XXH3, 64 bits) of the parameters' values over the ranks that hold the same part. A
/// rank that differs from most of its replicas, or from the lowest where there are two, is named with the
/// first such parameter in a Fault::machine that all ranks throw. Small: one checksum per rank where all is
/// well. Collective over all ranks.
void check_replicas(const ParameterSet& parameters, const Mesh& mesh);

}  // namespace conclave
