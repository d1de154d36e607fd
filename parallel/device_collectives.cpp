#include "parallel/device_collectives.h"

#include <chrono>
#include <future>
#include <thread>

#include "parallel/nccl/nccl_collectives.h"

namespace conclave {

std::unique_ptr<DeviceCollectives> device_collectives(Device& device, const MeetingPlace& place) {
  switch (device.kind()) {
    case DeviceKind::cpu:
    case DeviceKind::counting:
      break;
    case DeviceKind::emulated:
      return emulated::nccl_collectives(device, place);
    case DeviceKind::cuda:
      return cuda::nccl_collectives(device, place);
  }
  fail(Fault::internal, "device_collectives: tensors on ", device.name(), " came to ", place.where);
}

void abort_device_collectives() {
  // NCCL takes locks that a hanging thread may hold; the process ends in any case.
  auto done = std::make_shared<std::promise<void>>();
  std::thread([done] {
    emulated::abort_nccl();
    cuda::abort_nccl();
    done->set_value();
  }).detach();
  done->get_future().wait_for(std::chrono::seconds(3));
}

}  // namespace conclave
