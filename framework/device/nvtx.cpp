// Ranges for Nsight and its kin. Its twin without CUDA is no_nvtx.cpp.
#include <nvtx3/nvToolsExt.h>

#include "framework/device/named_range.h"

namespace conclave {

void tell_profiler_begin(const char* name) {
  nvtxRangePushA(name);
}
void tell_profiler_end() {
  nvtxRangePop();
}

}  // namespace conclave
