#include "framework/kernels/counting/counting_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "framework/base/allocation_size.h"
#include "framework/base/error.h"

namespace conclave {
namespace {

constexpr std::size_t page = 4096;
/// No processor of today has memory at such addresses, so a mistake that reads or writes there ends the
/// program.
constexpr std::uintptr_t first_address = std::uintptr_t{1} << 60, last_address = std::uintptr_t{1} << 63;

bool is_counted_only(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  return address >= first_address && address < last_address;
}

/// Experts in an order in which every beginning is spread evenly over them: 0, 4, 2, 6, 1, 5, 3, 7 of eight.
std::vector<std::int32_t> spread_order(std::int64_t experts) {
  std::int64_t power = 1;
  while (power < experts) power *= 2;
  std::vector<std::int32_t> order;
  for (std::int64_t i = 0; i < power; ++i) {
    std::int64_t reversed = 0;
    for (std::int64_t bit = 1, mirrored = power / 2; bit < power; bit *= 2, mirrored /= 2)
      if ((i & bit) != 0) reversed += mirrored;
    if (reversed < experts) order.push_back(static_cast<std::int32_t>(reversed));
  }
  return order;
}

}  // namespace

ExpertChoice even_choice() {
  return [](std::span<const std::int32_t>, std::int64_t experts, std::span<std::int32_t> chosen) {
    const std::vector<std::int32_t> order = spread_order(experts);
    for (std::size_t i = 0; i < chosen.size(); ++i) chosen[i] = order[i % order.size()];
  };
}

ExpertChoice crowded_choice(std::int64_t first, std::int64_t count, std::int64_t most) {
  return [first, count, most](std::span<const std::int32_t> tokens, std::int64_t experts,
                              std::span<std::int32_t> chosen) {
    check(count >= 1 && first >= 0 && first + count <= experts, "crowded_choice: experts ", first, " to ",
          first + count - 1, " were asked for of ", experts);
    std::vector<std::int32_t> outside = spread_order(experts);
    std::erase_if(outside, [&](std::int32_t expert) { return expert >= first && expert < first + count; });
    const auto top_k = static_cast<std::int64_t>(chosen.size() / std::max<std::size_t>(tokens.size(), 1));
    const auto most_outside = static_cast<std::int64_t>(outside.size());
    std::int64_t left = most;
    std::size_t next = 0;  // of those outside
    for (auto slot = chosen.begin(); slot != chosen.end();) {
      // A token that chooses more than there are outside must go inside.
      const std::int64_t inside = std::max(std::min({top_k, count, left}), top_k - most_outside);
      left -= std::min(left, inside);
      for (std::int64_t i = 0; i < inside; ++i) *slot++ = static_cast<std::int32_t>(first + i);
      for (std::int64_t i = inside; i < top_k; ++i) *slot++ = outside[next++ % outside.size()];
    }
  };
}

CountingDevice::CountingDevice(Options options)
    : options_(std::move(options)), next_address_(first_address) {}

std::shared_ptr<Buffer> CountingDevice::hand_out(void* data, std::size_t bytes, MemoryPurpose purpose) {
  const std::size_t size = allocation_size(bytes);
  MemoryUse::OfPurpose& of = use_.of[static_cast<std::size_t>(purpose)];
  use_.live += size;
  use_.peak = std::max(use_.peak, use_.live);
  use_.held = use_.peak;
  of.live += size;
  of.peak = std::max(of.peak, of.live);
  asked_[static_cast<std::size_t>(purpose)] += bytes;
  return std::make_shared<Buffer>(*this, data, bytes, purpose);
}

std::shared_ptr<Buffer> CountingDevice::allocate(std::size_t bytes, MemoryPurpose purpose) {
  if (bytes <= page) return allocate_integers(bytes, purpose);
  check(bytes < last_address - next_address_, Fault::request,
        "A rank would need more memory than can be counted: a tensor of ", bytes,
        " bytes came. Expected a smaller model or micro-batch.");
  auto* const data = reinterpret_cast<void*>(next_address_);
  next_address_ += (bytes + page - 1) / page * page;
  return hand_out(data, bytes, purpose);
}

std::shared_ptr<Buffer> CountingDevice::allocate_integers(std::size_t bytes, MemoryPurpose purpose) {
  void* const data = std::calloc(allocation_size(bytes), 1);
  check(data != nullptr, Fault::request, "There is no memory for ", bytes,
        " bytes of token ids and choices of experts. Expected a smaller micro-batch.");
  return hand_out(data, bytes, purpose);
}

void CountingDevice::release(const Buffer& buffer) {
  const std::size_t size = allocation_size(buffer.bytes());
  use_.live -= size;
  use_.of[static_cast<std::size_t>(buffer.purpose())].live -= size;
  asked_[static_cast<std::size_t>(buffer.purpose())] -= buffer.bytes();
  if (!is_counted_only(buffer.data())) std::free(buffer.data());
}

void CountingDevice::copy(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0 || is_counted_only(to)) return;
  if (is_counted_only(from))
    std::memset(to, 0, bytes);
  else
    std::memcpy(to, from, bytes);
}

void CountingDevice::fill_zero(void* data, std::size_t bytes) {
  if (bytes > 0 && !is_counted_only(data)) std::memset(data, 0, bytes);
}

void CountingDevice::reset_peak() {
  use_.peak = use_.live;
  for (MemoryUse::OfPurpose& of : use_.of) of.peak = of.live;
}

}  // namespace conclave
