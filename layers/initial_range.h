// Standard deviations of initial weights.
#pragma once

namespace conclave {

struct InitialRange {
  double inner = 0.02;     // of most matrices
  double residual = 0.02;  // of those that write into the residual stream: o_proj, down_proj
};

}  // namespace conclave
