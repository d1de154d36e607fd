#include "layers/moe/methods/capacity.h"

#include <algorithm>
#include <limits>

#include "framework/base/total_order.h"
#include "framework/kernels/scalar_math.h"
#include "framework/tensor/host_copies.h"
#include "layers/moe/methods.h"
#include "layers/moe/recipe.h"

namespace conclave {
namespace {

struct Assignment {
  double probability;
  std::size_t slot;  // token * top_k + k, counted over the micro-batch
};

/// p of each assignment, rounded to half of its type's digits, [tokens, top_k]; 0 where there is none.
/// `read`: the routing's probabilities, after one other.
std::vector<double> chosen_probabilities(const Routing& routing, const std::vector<std::int32_t>& experts,
                                         const HostCopies& read) {
  const std::size_t top_k = static_cast<std::size_t>(routing.experts.dim(1)),
                    columns = static_cast<std::size_t>(routing.probabilities.dim(1));
  std::vector<double> chosen(experts.size());
  with_float_type(routing.probabilities.dtype(), [&](auto zero) {
    const auto probabilities = read.of<decltype(zero)>(1);
    for (std::size_t slot = 0; slot < experts.size(); ++slot)
      if (experts[slot] >= 0)
        chosen[slot] =
            rounded_to(static_cast<double>(
                           probabilities[slot / top_k * columns + static_cast<std::size_t>(experts[slot])]),
                       std::numeric_limits<decltype(zero)>::digits / 2);
  });
  return chosen;
}

/// Rows of all ranks, in their order, over host memory.
template <class T>
std::vector<T> gather(const std::vector<T>& own, const Shape& shape, Communicator& ranks) {
  const Tensor all = Tensor::empty(shape.with(0, shape[0] * ranks.size()), dtype_of<T>());
  ranks.all_gather_rows(Tensor::from(own, shape), all, Purpose::statistics);
  return all.to_host<T>();
}

}  // namespace

Routing Capacity::limit(const Routing& routing, const RouterInput& seen) const {
  const ModelInput& input = seen.input;
  Communicator& micro_batch = seen.micro_batch;
  check(routing.probabilities.defined(), Fault::request, "model.moe.capacity_factor is ", factor_,
        ", but this router leaves no probabilities by which assignments could be dropped; expected 0");
  const std::int64_t tokens = routing.experts.dim(0), top_k = routing.experts.dim(1),
                     count = routing.probabilities.dim(1);
  const auto capacity = static_cast<std::size_t>(expert_capacity(factor_, input.length, top_k, count));

  // A sequence may lie across ranks, so each of them sees all assignments of the micro-batch and decides the
  // same.
  const HostCopies read({routing.experts, routing.probabilities});  // the host waits for the device once
  const auto own_experts = read.of<std::int32_t>(0);
  const std::vector<std::int32_t> experts = gather(own_experts, routing.experts.shape(), micro_batch);
  const std::vector<double> probabilities =
      gather(chosen_probabilities(routing, own_experts, read), routing.experts.shape(), micro_batch);
  const auto own_begin = static_cast<std::size_t>(micro_batch.rank() * tokens * top_k);
  const std::size_t own_end = own_begin + static_cast<std::size_t>(tokens * top_k);
  const std::int64_t first_token = input.first_token - micro_batch.rank() * tokens;  // of all of them

  std::vector<std::int32_t> kept(experts.begin() + static_cast<std::ptrdiff_t>(own_begin),
                                 experts.begin() + static_cast<std::ptrdiff_t>(own_end));
  std::int64_t dropped = 0;
  std::vector<std::vector<Assignment>> of_expert(static_cast<std::size_t>(count));
  const auto end_sequence = [&] {
    for (std::vector<Assignment>& assignments : of_expert) {
      if (assignments.size() > capacity) {
        // A total order, also where training has gone wrong and p is no number.
        std::sort(assignments.begin(), assignments.end(), [](const Assignment& a, const Assignment& b) {
          const auto order = total_order(a.probability, b.probability);
          return order != 0 ? order > 0 : a.slot < b.slot;
        });
        for (std::size_t i = capacity; i < assignments.size(); ++i)
          if (const std::size_t slot = assignments[i].slot; slot >= own_begin && slot < own_end) {
            kept[slot - own_begin] = -1;
            ++dropped;
          }
      }
      assignments.clear();
    }
  };
  for (std::int64_t token = 0; token < tokens * micro_batch.size(); ++token) {
    for (std::int64_t k = 0; k < top_k; ++k) {
      const auto slot = static_cast<std::size_t>(token * top_k + k);
      if (experts[slot] >= 0)
        of_expert[static_cast<std::size_t>(experts[slot])].push_back({probabilities[slot], slot});
    }
    if ((first_token + token + 1) % input.length == 0) end_sequence();
  }

  Routing limited = routing;
  limited.experts = Tensor::from(kept, routing.experts.shape(), routing.experts.device());
  limited.statistics.others.push_back(
      {"dropped", Tensor::from(std::vector<std::int64_t>{dropped}, {1}, routing.experts.device())});
  return limited;
}

namespace {

class CapacityLimit final : public Limit {
 public:
  explicit CapacityLimit(double factor) : capacity_(factor) {}
  Routing limit(const Routing& routing, const RouterInput& input) const override {
    return capacity_.limit(routing, input);
  }

 private:
  Capacity capacity_;
};

/// Reports what was dropped.
class Dropped final : public Objective {
 public:
  explicit Dropped(std::int64_t layers) : layers_(layers) {}
  void want(const StepFacts&, ExpertCounts::Needs&, StepSums& sums) override {
    sums.add("dropped", layers_);  // whole numbers, exact below 2^53
  }
  Variable of_micro_step(Tape&, const RoutedMicroStep& seen, Factors&, StepSums& sums) override {
    for (std::size_t layer = 0; layer < seen.readings.size(); ++layer)
      for (const std::int64_t count : seen.readings[layer].other("dropped"))
        sums["dropped"][layer] += static_cast<double>(count);
    return {};
  }
  void report(const StepOutcome&, const StepSums& sums, BalanceReport& report) override {
    std::int64_t all = 0;
    for (const double count : sums["dropped"]) all += static_cast<std::int64_t>(count);
    report.others.push_back({"dropped_assignments", all, sums["dropped"]});
  }

 private:
  std::int64_t layers_;
};

}  // namespace

Method capacity() {
  return {.limit = [](const MoeRecipe& moe) -> std::unique_ptr<Limit> {
            if (moe.capacity_factor == 0) return nullptr;
            return std::make_unique<CapacityLimit>(moe.capacity_factor);
          },
          .objective = [](const ObjectiveFacts& facts) -> std::unique_ptr<Objective> {
            if (facts.moe.capacity_factor == 0) return nullptr;
            return std::make_unique<Dropped>(facts.model.layers);
          },
          .looks_at_other_tokens = [](const MoeRecipe& moe) -> std::string {
            if (moe.capacity_factor == 0) return "";
            return join_text("model.moe.capacity_factor: ", moe.capacity_factor,
                             " makes all tokens of a sequence compete for the places of an expert");
          }};
}

}  // namespace conclave
