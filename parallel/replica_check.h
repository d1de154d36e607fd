// The replica check: parameters that several ranks hold must be bit-equal on all of them. Memory that lost a
// bit, a broken core or a forgotten reduction shows up here long before it shows in a loss.
#pragma once

#include "parallel/mesh.h"
#include "parallel/parameter.h"

namespace conclave {

/// Compares checksums (XXH3, 64 bits) of the parameters' values over the ranks that hold the same part. All
/// ranks throw a Fault::machine where a rank differs from most of its replicas, or from the lowest where
/// there are two. It names that rank and the first such parameter. Where all is well, one checksum per rank
/// is sent. Collective over all ranks.
void check_replicas(const ParameterSet& parameters, const Mesh& mesh);

}  // namespace conclave
