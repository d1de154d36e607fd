#include "launch/plan/plan_time.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <string_view>

#include "framework/base/error.h"
#include "launch/plan/collective_time.h"
#include "launch/plan/plan.h"

namespace conclave {
namespace {

double real(std::int64_t number) {
  return static_cast<double>(number);
}

double sum_of(const std::vector<NamedSeconds>& parts) {
  double sum = 0;
  for (const NamedSeconds& part : parts) sum += part.seconds;
  return sum;
}

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// The part of the model that some work belongs to, as users call it.
std::string part_of(const PlaceOfWork& place) {
  static const std::map<std::string_view, const char*> names = {{"mlp", "dense MLPs"},
                                                                {"router", "routers"},
                                                                {"shared_experts", "shared experts"},
                                                                {"residual", "norms and residual stream"}};
  if (place.layer.empty()) return "optimizer";
  if (!place.layer.starts_with("model.layers.")) return "embedding, LM head and loss";
  // A block's norms and sums stand beside what they lead to.
  const bool of_block = is_one_of(place.purpose, {"attention", "mlp", "residual"});
  if (of_block && is_one_of(place.kernel, {"rms_norm", "rms_norm_backward", "add", "add_scaled"}))
    return "norms and residual stream";
  const auto name = names.find(place.purpose);
  return name != names.end() ? name->second : place.purpose;
}

/// Seconds of one processor.
class KernelTime {
 public:
  KernelTime(const Recipe& recipe, const MachineModel& machine)
      : machine_(machine), head_dim_(real(recipe.model.head_dim)) {
    const double length = real(recipe.data.sequence_length);
    computed_scores_ = attention_scores(recipe.data.sequence_length) / (length * (length + 1) / 2);
  }

  double of(std::string_view kernel, const AmountOfWork& work) const {
    if (kernel == "gemm") return product(machine_.products, work);
    if (kernel.starts_with("grouped_linear")) return product(machine_.grouped_products, work);
    if (kernel == "attention") return attention(work, 4);
    if (kernel == "attention_backward") return attention(work, 10);
    if (is_one_of(kernel, {"adamw", "sum_of_squares", "sum_of_squares_of_pieces"}))
      return work.bytes / machine_.optimizer_bytes_per_second;
    if (work.exponentials > 0) return work.exponentials / machine_.exponentials_per_second;
    return work.bytes / machine_.pass_bytes_per_second;
  }

 private:
  static double product(const ProductRates& rates, const AmountOfWork& work) {
    return work.operations / rates.operations_per_second + work.bytes / rates.operand_bytes_per_second;
  }
  /// `per_score`: operations for each number of a head. A kernel states those of the scores that count; whole
  /// blocks of them are computed.
  double attention(const AmountOfWork& work, double per_score) const {
    const double operations = work.operations * computed_scores_;
    return operations / machine_.attention_operations_per_second +
           operations / (per_score * head_dim_) / machine_.scores_per_second;
  }

  const MachineModel& machine_;
  double head_dim_, computed_scores_ = 1;
};

struct Computing {
  std::vector<NamedSeconds> parts;
  double backward = 0, shared_experts = 0;
};

Computing computing_of(const Recipe& recipe, int ranks, const MachineModel& machine, const DryStep& step) {
  const double processors = processors_of_rank(recipe, ranks, machine);
  const KernelTime time(recipe, machine);
  std::map<std::string, double> seconds;
  Computing result;
  for (const auto& [place, work] : step.work) {
    const double own = time.of(place.kernel, work) / processors +
                       work.calls * machine.call_seconds / std::min(1.0, processors);
    seconds[part_of(place)] += own;
    if (place.backward) result.backward += own;
  }
  result.shared_experts = seconds["shared experts"];
  // In the order of the model; what a method brings of its own comes behind.
  for (const char* name : {"attention", "norms and residual stream", "dense MLPs", "routers", "experts",
                           "permutation", "shared experts", "embedding, LM head and loss", "optimizer"})
    if (const auto part = seconds.extract(name); !part.empty() && part.mapped() > 0)
      result.parts.push_back({name, part.mapped()});
  for (const auto& [name, own] : seconds)
    if (own > 0) result.parts.push_back({name, own});
  return result;
}

double seconds_of(const CollectiveTime& time, const Collective& one, bool by_tree) {
  const RankGroup group{one.members.size, std::max<std::int64_t>(one.members.stride, 1)};
  const double bytes = real(one.bytes), all = real(group.ranks);
  if (one.operation == "all_reduce")
    return by_tree ? time.all_reduce_by_tree(group, bytes) : time.all_reduce(group, bytes);
  // Traffic counts what leaves a rank; the formulas are of all that a rank has in the end, or at first.
  if (one.operation == "all_gather_rows") return time.all_gather(group, bytes * all);
  if (one.operation == "reduce_scatter_rows") return time.reduce_scatter(group, bytes * all / (all - 1));
  if (one.operation == "all_to_all_rows") return time.all_to_all(group, bytes * all / (all - 1));
  fail(Fault::internal, "plan_time: a step does not know the time of ", std::string(one.operation));
}

}  // namespace

double TimePlan::computing_seconds() const {
  return sum_of(computing);
}

double TimePlan::network_seconds() const {
  return sum_of(network);
}

double attention_scores(std::int64_t length) {
  return real(length) * real(length + std::min<std::int64_t>(length, 64)) / 2;
}

double processors_of_rank(const Recipe& recipe, int ranks, const MachineModel& machine) {
  const double together = real(std::min<std::int64_t>(ranks, machine.ranks_per_node));
  const double share = real(machine.processors_per_node) / together;
  const std::int64_t threads = recipe.training.threads;
  // A processor's rest lies idle: ranks have whole ones or share one.
  const double own = share < 1 ? share : std::floor(share);
  return threads > 0 ? std::min(own, real(threads)) : own;
}

TimePlan plan_time(const Recipe& recipe, int ranks, const MachineModel& machine, const DryStep& step) {
  check(machine.precision == recipe.training.precision, Fault::request, "machine ", machine.name,
        ": its rates are for ", machine.precision, ", the recipe's training.precision is ",
        recipe.training.precision);
  const Computing computing = computing_of(recipe, ranks, machine, step);
  const CollectiveTime time(machine, ranks);
  std::array<double, purposes> seconds{};
  double last_bucket = 0;  // what no backward hides
  for (const auto& [collective, calls] : step.collectives) {
    const bool of_gradients = collective.purpose == Purpose::gradients;
    const double one = seconds_of(time, collective, of_gradients && machine.nonblocking_all_reduce == "tree");
    seconds[static_cast<std::size_t>(collective.purpose)] += calls * one;
    if (of_gradients) last_bucket = std::max(last_bucket, one);
  }
  TimePlan plan{.computing = computing.parts};
  for (const Purpose purpose : {Purpose::gradients, Purpose::parameters, Purpose::activations,
                                Purpose::dispatch, Purpose::combine, Purpose::statistics})
    plan.network.push_back({name_of(purpose), seconds[static_cast<std::size_t>(purpose)]});
  // Gradients travel under the last micro-batch's backward, rows of dispatch under the shared experts.
  const double backward = computing.backward / real(plan_layout(recipe, ranks).micro_steps);
  const double gradients = seconds[static_cast<std::size_t>(Purpose::gradients)];
  plan.hidden = std::min(gradients - last_bucket, machine.overlap * backward) +
                std::min(seconds[static_cast<std::size_t>(Purpose::dispatch)],
                         machine.overlap * computing.shared_experts);
  return plan;
}

TimePlan plan_time(const Recipe& recipe, int ranks, const MachineModel& machine) {
  return plan_time(recipe, ranks, machine, plan_step(recipe, ranks));
}

}  // namespace conclave
