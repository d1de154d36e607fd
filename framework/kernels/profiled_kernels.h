// ProfiledKernels: another backend's kernels, each of which reports to the active Profile what it took, the bytes
// that it had to read and write at least, and the floating-point operations where these are what it is about.
#pragma once

#include "framework/kernels/kernels.h"

namespace conclave {

class ProfiledKernels final : public Kernels {
 public:
  explicit ProfiledKernels(const Kernels& kernels) : kernels_(kernels) {}

@@
 private:
  const Kernels& kernels_;
};

}  // namespace conclave
