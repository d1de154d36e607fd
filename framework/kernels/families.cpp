// The families of kernels that stand in headers of their own. Every back end's table has them.
#include "framework/kernels/bias.h"
#include "framework/kernels/reciprocal.h"
#include "framework/kernels/rope.h"
#include "framework/kernels/token_masks.h"

namespace conclave {

void put_families(Kernels& kernels) {
  kernels.join<BiasKernels>();
  kernels.join<ReciprocalKernels>();
  kernels.join<RopeKernels>();
  kernels.join<TokenMaskKernels>();
}

}  // namespace conclave
