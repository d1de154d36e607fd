#include "layers/moe/dispatcher.h"

#include <algorithm>
#include <numeric>

#include "framework/autograd/ops/elementwise.h"
#include "parallel/collectives.h"

namespace conclave {
namespace {

/// The order that undoes a sort of single assignments: row i of the result is row row_of_slot[i] of the
/// sorted rows.
RowOrder inverse_of(const RowOrder& order) {
  const std::int64_t rows = order.token_of_row.dim(0);
  return {.offsets = order.offsets,
          .row_of_slot = order.token_of_row.view({rows, 1}),
          .token_of_row = order.row_of_slot.view({rows}),
          .slot_of_row = order.row_of_slot.view({rows})};
}

/// The order by expert of rows that arrive rank after rank and, of each, expert after expert: counts [ranks,
/// experts]. The host knows all of it, so nothing is sorted on the device and nobody waits.
RowOrder order_of_arrivals(const RowCounts& counts, std::int64_t experts, Device& device) {
  const auto width = static_cast<std::size_t>(experts);
  std::vector<std::int64_t> offsets(width + 1);
  for (std::size_t i = 0; i < counts.size(); ++i) offsets[i % width + 1] += counts[i];
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  const std::int64_t rows = offsets.back();
  std::vector<std::int32_t> sorted_row, arrived_row(static_cast<std::size_t>(rows));
  sorted_row.reserve(static_cast<std::size_t>(rows));
  std::vector<std::int64_t> next(offsets.begin(), offsets.end() - 1);
  for (std::size_t i = 0; i < counts.size(); ++i)
    for (std::int64_t row = 0; row < counts[i]; ++row) {
      const std::int64_t to = next[i % width]++;
      arrived_row[static_cast<std::size_t>(to)] = static_cast<std::int32_t>(sorted_row.size());
      sorted_row.push_back(static_cast<std::int32_t>(to));
    }
  RowOrder order;
  order.offsets = RowOffsets(Tensor::from(offsets, {experts + 1}, device), offsets);
  order.row_of_slot = Tensor::from(sorted_row, {rows, 1}, device);
  order.token_of_row = Tensor::from(arrived_row, {rows}, device);
  order.slot_of_row = order.token_of_row;  // one expert each
  return order;
}

}  // namespace

FinishDispatch LocalDispatcher::begin(Tape& tape, const Variable& x, const Routing& routing) const {
  const RowOrder order = kernels_of(x.value).sort_by_expert(routing.experts, experts_);
  return [&tape, order, rows = permute_rows(tape, x, order),
          weights = routing.weights](const ExpertFunction& experts) {
    return combine_rows(tape, experts(tape, rows, order.offsets), weights, order);
  };
}

AllToAllDispatcher::AllToAllDispatcher(Communicator& group, const AllToAllOptions& options)
    : group_(group),
      options_(options),
      experts_here_(options.experts * options.expert_tensor / group.size()) {}

struct AllToAllDispatcher::Plan {
  std::vector<std::int32_t>
      destinations;  // [tokens, top_k * expert_tensor]; rank * experts there + expert there, or -1
  std::vector<std::int32_t> rounds;  // [tokens, top_k * expert_tensor]
  std::int64_t round_count = 1;      // equal on all ranks of the group
};

AllToAllDispatcher::Plan AllToAllDispatcher::plan(const Tensor& chosen) const {
  const std::int64_t copies = options_.expert_tensor, ranks = group_.size();
  Plan made;
  made.destinations.reserve(static_cast<std::size_t>(chosen.elements() * copies));
  for (const std::int32_t expert : chosen.to_host<std::int32_t>())
    for (std::int64_t copy = 0; copy < copies; ++copy) {
      const std::int64_t rank = expert / experts_here_ * copies + copy;
      made.destinations.push_back(
          expert < 0 ? -1 : static_cast<std::int32_t>(rank * experts_here_ + expert % experts_here_));
    }
  made.rounds.assign(made.destinations.size(), 0);
  if (options_.most_rows <= 0) return made;

  // Every rank learns how many rows each sends to each, so that all agree on the rounds without another word:
  // the rows that a rank receives are numbered by sending rank, and round r takes the numbers from r *
  // most_rows on.
  RowCounts sends(static_cast<std::size_t>(ranks));
  for (const std::int32_t destination : made.destinations)
    if (destination >= 0) ++sends[static_cast<std::size_t>(destination / experts_here_)];
  const Tensor all = Tensor::empty({ranks, ranks}, DType::int64);
  group_.all_gather_rows(Tensor::from(sends, {1, ranks}), all, Purpose::dispatch);
  const std::vector<std::int64_t> matrix = all.to_host<std::int64_t>();
  RowCounts next(
      static_cast<std::size_t>(ranks));  // number of this rank's next row among those its receiver gets
  for (std::int64_t receiver = 0; receiver < ranks; ++receiver) {
    std::int64_t received = 0;
    for (std::int64_t sender = 0; sender < ranks; ++sender) {
      if (sender == group_.rank()) next[static_cast<std::size_t>(receiver)] = received;
      received += matrix[static_cast<std::size_t>(sender * ranks + receiver)];
    }
    made.round_count = std::max(made.round_count, (received + options_.most_rows - 1) / options_.most_rows);
  }
  for (std::size_t slot = 0; slot < made.destinations.size(); ++slot)
    if (made.destinations[slot] >= 0)
      made.rounds[slot] = static_cast<std::int32_t>(
          next[static_cast<std::size_t>(made.destinations[slot] / experts_here_)]++ / options_.most_rows);
  return made;
}

FinishDispatch AllToAllDispatcher::begin_round(Tape& tape, const Variable& x, const Variable& weights,
                                               const Tensor& destinations) const {
  const std::int64_t ranks = group_.size();
  // Sorted by rank and expert; the rows for one rank lie together.
  const RowOrder outgoing = kernels_of(x.value).sort_by_expert(destinations, ranks * experts_here_);
  const std::vector<std::int64_t> offsets = outgoing.offsets.on_host();
  RowCounts sent(static_cast<std::size_t>(ranks * experts_here_)), send_rows(static_cast<std::size_t>(ranks));
  for (std::size_t i = 0; i < sent.size(); ++i) {
    sent[i] = offsets[i + 1] - offsets[i];
    send_rows[i / static_cast<std::size_t>(experts_here_)] += sent[i];
  }
  // The counts by expert go ahead: the receiver sorts what it gets from all ranks by expert.
  const Tensor arriving = Tensor::empty({ranks, experts_here_}, DType::int64);
  const RowCounts one_each(static_cast<std::size_t>(ranks), 1);
  group_.all_to_all_rows(Tensor::from(sent, {ranks, experts_here_}), one_each, arriving, one_each,
                         Purpose::dispatch);
  const std::vector<std::int64_t> counts = arriving.to_host<std::int64_t>();
  RowCounts receive_rows(static_cast<std::size_t>(ranks));
  for (std::size_t i = 0; i < counts.size(); ++i)
    receive_rows[i / static_cast<std::size_t>(experts_here_)] += counts[i];
  const RowOrder here = order_of_arrivals(counts, experts_here_, x.value.device());

  const PendingRows travelling = start_exchange_rows(tape, permute_rows(tape, x, outgoing), send_rows,
                                                     receive_rows, group_, Purpose::dispatch);
  return [&tape, travelling, outgoing, here, send_rows, receive_rows, weights,
          &group = group_](const ExpertFunction& experts) {
    const Variable received = finish_exchange_rows(tape, travelling);
    const Variable outputs = experts(tape, permute_rows(tape, received, here), here.offsets);
    const Variable returned = exchange_rows(tape, permute_rows(tape, outputs, inverse_of(here)), receive_rows,
                                            send_rows, group, Purpose::combine);
    return combine_rows(tape, returned, weights, outgoing);
  };
}

FinishDispatch AllToAllDispatcher::begin(Tape& tape, const Variable& x, const Routing& routing) const {
  // With one copy of each expert's assignments, rank * experts there + expert there is the expert itself.
  const bool by_expert = options_.expert_tensor == 1;
  if (by_expert && options_.most_rows <= 0) return begin_round(tape, x, routing.weights, routing.experts);
  const Plan made = plan(routing.experts);
  const Shape slots{x.value.dim(0), routing.experts.dim(1) * options_.expert_tensor};
  const Variable weights = repeat_columns(tape, routing.weights, options_.expert_tensor);
  if (made.round_count == 1)
    return begin_round(
        tape, x, weights,
        by_expert ? routing.experts : Tensor::from(made.destinations, slots, x.value.device()));

  return [this, &tape, made, slots, x, weights](const ExpertFunction& experts) {
    Variable sum;
    for (std::int64_t r = 0; r < made.round_count; ++r) {
      std::vector<std::int32_t> destinations = made.destinations;
      for (std::size_t slot = 0; slot < destinations.size(); ++slot)
        if (made.rounds[slot] != r) destinations[slot] = -1;
      const Tensor of_round = Tensor::from(destinations, slots, x.value.device());
      // Kept for backward is x alone; what a round received lives only while it is computed.
      const Variable part =
          recompute(tape, {x, weights},
                    [this, of_round, experts](Tape& inner, const std::vector<Variable>& in, SegmentRun) {
                      return std::vector<Variable>{begin_round(inner, in[0], in[1], of_round)(experts)};
                    })[0];
      sum = r == 0 ? part : add(tape, sum, part);
    }
    return sum;
  };
}

AllGatherDispatcher::AllGatherDispatcher(Communicator& group, std::int64_t experts,
                                         std::int64_t expert_tensor)
    : group_(group),
      experts_here_(experts * expert_tensor / group.size()),
      first_expert_(group.rank() / expert_tensor * experts_here_) {}

FinishDispatch AllGatherDispatcher::begin(Tape& tape, const Variable& x, const Routing& routing) const {
  const Variable all_x = gather_rows(tape, x, group_, Purpose::dispatch);
  const Variable all_weights = gather_rows(tape, routing.weights, group_, Purpose::dispatch);
  const Tensor chosen = Tensor::empty(all_weights.value.shape(), DType::int32, x.value.device());
  group_.all_gather_rows(routing.experts, chosen, Purpose::dispatch);
  std::vector<std::int32_t> here = chosen.to_host<std::int32_t>();
  for (std::int32_t& expert : here) {
    const std::int64_t own = expert - first_expert_;
    expert = expert >= 0 && own >= 0 && own < experts_here_ ? static_cast<std::int32_t>(own) : -1;
  }
  const RowOrder order =
      kernels_of(x.value).sort_by_expert(Tensor::from(here, chosen.shape(), x.value.device()), experts_here_);
  return [&tape, order, rows = permute_rows(tape, all_x, order), all_weights,
          &group = group_](const ExpertFunction& experts) {
    const Variable outputs = experts(tape, rows, order.offsets);
    return scatter_sum(tape, combine_rows(tape, outputs, all_weights, order), group, Purpose::combine);
  };
}

}  // namespace conclave
