// Clipping by the global norm (Pascanu et al., arXiv 1211.5063). A gradient longer than the limit is made as
// long as the limit, and its direction stays.
#pragma once

namespace conclave {

/// Returns the factor on the gradient whose global norm this is; a limit of 0 clips nothing.
inline double clipping_factor(double norm, double limit) {
  return limit > 0 && norm > limit ? limit / norm : 1.0;
}

}  // namespace conclave
