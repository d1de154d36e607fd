// The families of kernels that stand in headers of their own. Every back end's table has them.
#include "framework/kernels/bias.h"
#include "framework/kernels/rope.h"

namespace conclave {

void put_families(Kernels& kernels) {
  kernels.join<BiasKernels>();
  kernels.join<RopeKernels>();
}

}  // namespace conclave
