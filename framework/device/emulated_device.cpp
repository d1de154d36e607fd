#include "framework/device/gpu_device.h"

namespace conclave {

Device& emulated_device() {
  return emulated::this_gpu(0);
}

}  // namespace conclave
