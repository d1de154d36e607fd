#include "launch/plan/collective_time.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "framework/base/error.h"

namespace conclave {
namespace {

double real(std::int64_t number) {
  return static_cast<double>(number);
}

bool is_power_of_two(std::int64_t number) {
  return std::has_single_bit(static_cast<std::uint64_t>(number));
}

/// ceil(log2(ranks))
std::int64_t rounds_of(std::int64_t ranks) {
  return std::bit_width(static_cast<std::uint64_t>(ranks - 1));
}

/// (p - 1) / p
double others(RankGroup group) {
  return real(group.ranks - 1) / real(group.ranks);
}

}  // namespace

CollectiveTime::CollectiveTime(const MachineModel& machine, std::int64_t job_ranks)
    : machine_(machine),
      ranks_per_node_(real(std::min(machine.ranks_per_node, job_ranks))),
      sharing_(std::max(1.0, ranks_per_node_ / real(machine.processors_per_node))) {
  check(job_ranks == 1 || (machine.within_node.bytes_per_second > 0 && machine.reduced_bytes_per_second > 0),
        Fault::request, "machine ", machine.name, ": ", job_ranks,
        " ranks came, and its description has no within_node.bytes_per_second or "
        "collectives.reduced_bytes_per_second; mpirun -n 2 conclave bench --machine FILE measures them");
  check(job_ranks <= machine.ranks_per_node || machine.between_nodes.bytes_per_second > 0, Fault::request,
        "machine ", machine.name, ": ", job_ranks, " ranks came, and it is one node of ",
        machine.ranks_per_node,
        "; expected between_nodes.bytes_per_second in its description, or another ranks_per_node");
}

std::int64_t CollectiveTime::members_per_node(RankGroup group) const {
  const auto members = static_cast<std::int64_t>(ranks_per_node_) / group.stride;
  return std::clamp<std::int64_t>(members, 1, group.ranks);
}

double CollectiveTime::message(RankGroup group, double distance, double bytes) const {
  if (distance < real(members_per_node(group)))
    return sharing_ * (machine_.within_node.latency_seconds + bytes / machine_.within_node.bytes_per_second);
  return machine_.between_nodes.latency_seconds +
         bytes * ranks_per_node_ / machine_.between_nodes.bytes_per_second;
}

double CollectiveTime::crossing(RankGroup group, double bytes) const {
  const double groups = ranks_per_node_ / real(members_per_node(group));
  return machine_.between_nodes.latency_seconds + bytes * groups / machine_.between_nodes.bytes_per_second;
}

double CollectiveTime::ring_message(RankGroup group, double bytes) const {
  const std::int64_t members = members_per_node(group);
  const double within = members > 1 ? message(group, 1, bytes) : 0;
  return members == group.ranks ? within : std::max(within, crossing(group, bytes));
}

template <class Bytes>
double CollectiveTime::rounds(RankGroup group, Bytes bytes) const {
  double seconds = 0;
  for (std::int64_t round = 0; round < rounds_of(group.ranks); ++round)
    seconds += message(group, std::exp2(real(round)), bytes(round));
  return seconds;
}

double CollectiveTime::adding(double bytes) const {
  return sharing_ * bytes / machine_.reduced_bytes_per_second;
}

double CollectiveTime::all_reduce_by_doubling(RankGroup group, double bytes) const {
  // Beyond the largest power of two the rest first hands over and last receives.
  const double extra = is_power_of_two(group.ranks) ? 0 : 2;
  const std::int64_t paired = rounds_of(group.ranks) - (extra > 0 ? 1 : 0);
  return rounds({std::int64_t{1} << paired, group.stride}, [&](std::int64_t) { return bytes; }) +
         extra * message(group, 1, bytes) + real(paired + (extra > 0 ? 1 : 0)) * adding(bytes);
}

double CollectiveTime::all_reduce_by_ring(RankGroup group, double bytes) const {
  return 2 * real(group.ranks - 1) * ring_message(group, bytes / real(group.ranks)) +
         adding(others(group) * bytes);
}

double CollectiveTime::all_reduce_by_halving(RankGroup group, double bytes) const {
  return reduce_scatter_by_halving(group, bytes) + all_gather_by_doubling(group, bytes);
}

double CollectiveTime::all_reduce_by_tree(RankGroup group, double bytes) const {
  double seconds = 0;
  for (std::int64_t round = 0; round < rounds_of(group.ranks); ++round) {
    // So many of the group's ranks send; the others leave their processors to them.
    const double senders = std::exp2(real(round)) / real(group.ranks);
    const double turns = std::max(1.0, senders * sharing_) / sharing_;
    const double distance = std::exp2(real(round));
    const double one = distance < real(members_per_node(group)) ? turns * message(group, distance, bytes)
                                                                : crossing(group, bytes);
    seconds += 2 * one + turns * adding(bytes);
  }
  return seconds;
}

double CollectiveTime::all_reduce(RankGroup group, double bytes) const {
  if (group.ranks == 1) return 0;
  const double simple = std::min(all_reduce_by_doubling(group, bytes), all_reduce_by_ring(group, bytes));
  return is_power_of_two(group.ranks) ? std::min(simple, all_reduce_by_halving(group, bytes)) : simple;
}

double CollectiveTime::all_gather_by_ring(RankGroup group, double bytes) const {
  return real(group.ranks - 1) * ring_message(group, bytes / real(group.ranks));
}

double CollectiveTime::all_gather_by_doubling(RankGroup group, double bytes) const {
  return rounds(group,
                [&](std::int64_t round) { return bytes / real(group.ranks) * std::exp2(real(round)); });
}

double CollectiveTime::all_gather(RankGroup group, double bytes) const {
  if (group.ranks == 1) return 0;
  const double ring = all_gather_by_ring(group, bytes);
  return is_power_of_two(group.ranks) ? std::min(ring, all_gather_by_doubling(group, bytes)) : ring;
}

double CollectiveTime::reduce_scatter_by_ring(RankGroup group, double bytes) const {
  return all_gather_by_ring(group, bytes) + adding(others(group) * bytes);
}

double CollectiveTime::reduce_scatter_by_halving(RankGroup group, double bytes) const {
  return all_gather_by_doubling(group, bytes) + adding(others(group) * bytes);
}

double CollectiveTime::reduce_scatter(RankGroup group, double bytes) const {
  if (group.ranks == 1) return 0;
  const double ring = reduce_scatter_by_ring(group, bytes);
  return is_power_of_two(group.ranks) ? std::min(ring, reduce_scatter_by_halving(group, bytes)) : ring;
}

double CollectiveTime::all_to_all(RankGroup group, double bytes) const {
  if (group.ranks == 1) return 0;
  const double part = bytes / real(group.ranks);
  const double near = real(members_per_node(group) - 1), far = real(group.ranks) - near - 1;
  const auto together = [](const LinkRates& link, double messages, double seconds) {
    return messages == 0 ? 0 : link.latency_seconds + (messages - 1) * link.message_seconds + seconds;
  };
  const double within =
      sharing_ * together(machine_.within_node, near, near * part / machine_.within_node.bytes_per_second);
  if (far == 0) return within;
  // The two kinds go by different ways at the same time.
  return std::max(within, together(machine_.between_nodes, far,
                                   far * part * ranks_per_node_ / machine_.between_nodes.bytes_per_second));
}

}  // namespace conclave
