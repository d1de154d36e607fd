#include "parallel/replica_check.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <optional>

namespace conclave {
namespace {

/// The ranks that hold the same part: the placement's replicas, and where nothing is cut, all data_tensor
/// ranks.
Axis holders_of(const Parameter& parameter) {
  const Placement& placement = parameter.placement;
  return placement.cuts.empty() && placement.replicas == Axis::data ? Axis::data_tensor : placement.replicas;
}

std::int64_t checksum(const void* data, std::size_t bytes) {
  return static_cast<std::int64_t>(XXH3_64bits(data, bytes));
}

std::int64_t checksum(const Parameter& parameter) {
  if (parameter.value.device().kind() == DeviceKind::cpu)
    return checksum(parameter.value.raw(), parameter.value.bytes());
  std::vector<std::byte> host(parameter.value.bytes());
  parameter.value.device().copy_to_host(host.data(), parameter.value.raw(), host.size());
  return checksum(host.data(), host.size());
}

/// Everybody's numbers, [ranks][count].
std::vector<std::int64_t> gathered(Communicator& ranks, const std::vector<std::int64_t>& own) {
  const auto count = static_cast<std::int64_t>(own.size());
  const Tensor all = Tensor::empty({ranks.size(), count}, DType::int64);
  ranks.all_gather_rows(Tensor::from(own, {1, count}), all, Purpose::agreement);
  return all.to_host<std::int64_t>();
}

/// Coordinates of the first rank whose value is not that of most, and of the first one that has the common
/// value; ties go to the lowest rank.
struct Odd {
  std::ptrdiff_t rank, reference;
};
std::optional<Odd> odd_one(const std::vector<std::int64_t>& values) {
  std::int64_t common = values[0];
  std::ptrdiff_t most = 0;
  for (const std::int64_t value : values) {
    const std::ptrdiff_t times = std::count(values.begin(), values.end(), value);
    if (times > most) {
      most = times;
      common = value;
    }
  }
  const auto odd =
      std::find_if(values.begin(), values.end(), [common](std::int64_t value) { return value != common; });
  if (odd == values.end()) return std::nullopt;
  return Odd{odd - values.begin(), std::find(values.begin(), values.end(), common) - values.begin()};
}

}  // namespace

void check_replicas(const ParameterSet& parameters, const Mesh& mesh) {
  constexpr std::array held = {Axis::data, Axis::data_tensor, Axis::expert_data};
  std::array<std::vector<const Parameter*>, held.size()> lists;
  std::array<std::vector<std::int64_t>, held.size()> checksums;
  for (const Parameter& parameter : parameters.all()) {
    const auto place =
        static_cast<std::size_t>(std::find(held.begin(), held.end(), holders_of(parameter)) - held.begin());
    check(place < held.size(), "check_replicas: ", parameter.name, " has replicas over the axis ",
          name_of(holders_of(parameter)));
    lists[place].push_back(&parameter);
    checksums[place].push_back(checksum(parameter));
  }
  // One checksum of all checksums per axis first; every rank then knows whether any rank has seen a
  // difference.
  std::int64_t differs = 0;
  for (std::size_t i = 0; i < held.size(); ++i) {
    const std::vector<std::int64_t>& own = checksums[i];
    const auto all = gathered(mesh.axis(held[i]), {checksum(own.data(), own.size() * sizeof(std::int64_t))});
    if (odd_one(all)) differs = 1;
  }
  const Tensor any = Tensor::from(std::vector<std::int64_t>{differs}, {1});
  mesh.world().all_reduce(any, ReduceOp::maximum, Purpose::agreement);
  if (any.to_host<std::int64_t>()[0] == 0) return;

  std::string found;
  for (std::size_t i = 0; i < held.size(); ++i) {
    Communicator& ranks = mesh.axis(held[i]);
    const std::size_t count = checksums[i].size();
    const std::vector<std::int64_t> all = gathered(ranks, checksums[i]);
    for (std::size_t p = 0; p < count && found.empty(); ++p) {
      std::vector<std::int64_t> values;
      for (int rank = 0; rank < ranks.size(); ++rank)
        values.push_back(all[static_cast<std::size_t>(rank) * count + p]);
      const std::optional<Odd> odd = odd_one(values);
      if (!odd) continue;
      const std::vector<std::int64_t> group = mesh.layout().group(mesh.world().rank(), held[i]);
      found = join_text("replicas of ", lists[i][p]->name, " are not equal: rank ",
                        group[static_cast<std::size_t>(odd->rank)], " holds other values than rank ",
                        group[static_cast<std::size_t>(odd->reference)],
                        values.size() > 2 ? " and most others" : "",
                        "; suspect the first one's machine, and go on from the last checkpoint");
    }
  }
  for (const std::string& sentence : all_gather_text(mesh.world(), found))
    if (!sentence.empty()) throw Error(Fault::machine, sentence, Reach::all_ranks);
}

}  // namespace conclave
