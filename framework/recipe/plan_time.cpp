// Seconds of a step. Computing: T tokens of the micro-batch, A = T rows of the residual stream (T / t with
// `sequence`), S = T / t of the shard, R rows of a rank's experts, h hidden; a pass reads and writes so many
// numbers:
//                      forward                                  backward
//   norm               2 rows h                                 3 rows h
//   sum of a residual  3 A h                                    3 A h, where its gradients meet
//   linear             one product                              two: gradients of input and weight
//   rotation           2 numbers                                2 numbers
//   attention          2 products and a softmax over its scores  5 products and one more exponential
//   SwiGLU             1 exponential per number                 as many
//   loss               1 exponential per logit                  as many, with three products in all
//   permutation        2 R h for each of its orders             as many
//   combination        (S k + S) h                              (2 S k + S) h
//   optimizer          AdamW 7, the norm 1 per owned number, from memory
#include "framework/recipe/plan_time.h"

#include <algorithm>
#include <cmath>

#include "framework/base/error.h"
#include "framework/recipe/model_size.h"
#include "framework/recipe/network_time.h"
#include "framework/recipe/plan_parts.h"

namespace conclave {
namespace {

double sum_of(const std::vector<NamedSeconds>& parts) {
  double sum = 0;
  for (const NamedSeconds& part : parts) sum += part.seconds;
  return sum;
}

/// Computing of one rank, part after part.
class Computing {
 public:
  Computing(const Recipe& recipe, int ranks, const MachineModel& machine)
      : recipe_(recipe),
        model_(recipe.model),
        machine_(machine),
        layout_(plan_layout(recipe, ranks)),
        ranks_(ranks),
        processors_(processors_of_rank(recipe, ranks, machine)),
        element_(element_bytes(recipe)),
        tensor_(real(recipe.parallel.tensor)),
        tokens_(real(layout_.tokens_per_micro_batch)),
        shard_(real(layout_.tokens_per_shard)),
        residual_(shards_sequence(recipe.parallel) ? shard_ : tokens_),
        hidden_(real(recipe.model.hidden_size)) {}

  void run() {
    const ForwardRuns runs = forward_runs(recipe_, layout_);
    const double steps = real(layout_.micro_steps), layers = real(model_.num_hidden_layers),
                 moe_layers = real(count_moe_layers(model_));
    forward_ = steps * layers * (runs.counting + runs.computing);
    backward_ = steps * layers;
    begin("attention");
    attention();
    begin("norms and residual stream");
    for (int norm = 0; norm < 2; ++norm) pass(2 * residual_ * hidden_, 3 * residual_ * hidden_);
    for (int sum = 0; sum < 2; ++sum) pass(3 * residual_ * hidden_, 3 * residual_ * hidden_);
    forward_ *= (layers - moe_layers) / layers;
    backward_ *= (layers - moe_layers) / layers;
    if (backward_ > 0) {
      begin("dense MLPs");
      mlp(tokens_, real(model_.intermediate_size) / tensor_);
    }
    forward_ = steps * moe_layers * (runs.counting + runs.computing);
    backward_ = steps * moe_layers;
    if (moe_layers > 0) experts();
    forward_ = steps * (1 + runs.counting);
    backward_ = steps;
    begin("embedding, LM head and loss");
    vocabulary();
    begin("optimizer");
    optimizer();
  }

  const std::vector<NamedSeconds>& parts() const { return parts_; }
  double backward_of_micro_batch() const { return backward_seconds_ / real(layout_.micro_steps); }
  double of_shared_experts() const { return shared_experts_; }

 private:
  void begin(const char* part) { parts_.push_back({part, 0}); }
  /// Work of all processors of the rank, in seconds of one, and the kernels that it takes.
  void add(double times, double seconds, double calls) {
    parts_.back().seconds +=
        times * (seconds / processors_ + calls * machine_.call_seconds / std::min(1.0, processors_));
  }
  void forward(double seconds, double calls = 1) { add(forward_, seconds, calls); }
  void backward(double seconds, double calls = 1) {
    const double before = parts_.back().seconds;
    add(backward_, seconds, calls);
    backward_seconds_ += parts_.back().seconds - before;
  }

  void pass(double numbers_forward, double numbers_backward) {
    forward(numbers_forward * element_ / machine_.pass_bytes_per_second);
    backward(numbers_backward * element_ / machine_.pass_bytes_per_second);
  }
  void exponentials(double numbers) {
    forward(numbers / machine_.exponentials_per_second);
    backward(numbers / machine_.exponentials_per_second);
  }
  /// `count` products of [m, k] and [k, n].
  double product(const ProductRates& rates, double count, double m, double n, double k) const {
    return count * (2 * m * n * k / rates.operations_per_second +
                    operand_bytes(m, n, k, element_) / rates.operand_bytes_per_second);
  }
  /// y [rows, out] = x [rows, in] W^T; `experts` of them, which share the rows out evenly.
  void linear(double rows, double in, double out) {
    forward(product(machine_.products, 1, rows, out, in));
    backward(product(machine_.products, 1, rows, in, out) + product(machine_.products, 1, out, in, rows), 2);
  }
  void grouped_linear(double rows, double experts, double in, double out) {
    const double own = rows / experts;
    forward(product(machine_.grouped_products, experts, own, out, in));
    backward(product(machine_.grouped_products, experts, own, in, out) +
                 product(machine_.grouped_products, experts, out, in, own),
             2);
  }
  void mlp(double rows, double width) {
    linear(rows, hidden_, width);
    linear(rows, hidden_, width);
    exponentials(rows * width);
    linear(rows, width, hidden_);
  }

  void attention() {
    const double head = real(model_.head_dim), heads = real(model_.num_attention_heads) / tensor_,
                 kv_heads = real(model_.num_key_value_heads) / tensor_;
    linear(tokens_, hidden_, heads * head);
    for (int i = 0; i < 2; ++i) linear(tokens_, hidden_, kv_heads * head);
    linear(tokens_, heads * head, hidden_);
    for (const double count : {heads, kv_heads}) {
      const double numbers = tokens_ * count * head;
      if (model_.qk_norm) pass(2 * numbers, 3 * numbers);
      pass(2 * numbers, 2 * numbers);
    }
    const double scores =
        heads * tokens_ / real(recipe_.data.sequence_length) * attention_scores(recipe_.data.sequence_length);
    forward(4 * head * scores / machine_.attention_operations_per_second +
            scores / machine_.scores_per_second);
    backward(10 * head * scores / machine_.attention_operations_per_second +
             scores / machine_.scores_per_second);
  }

  void experts() {
    const MoeRecipe& moe = model_.moe;
    const double all = real(moe.num_experts), top_k = real(moe.num_experts_per_tok);
    begin("routers");
    linear(shard_, hidden_, all);
    exponentials(shard_ * all);
    // The probabilities by which pools are chosen, and the logits copied and masked.
    if (moe.router.pool.maximum > 0) {
      forward(shard_ * all / machine_.exponentials_per_second);
      forward(2 * shard_ * all * sum_bytes(recipe_) / machine_.pass_bytes_per_second, 2);
    }
    const double rows = real(layout_.expected_expert_rows),
                 width = real(moe.moe_intermediate_size / recipe_.parallel.expert_tensor);
    begin("experts");
    const double here = all / real(recipe_.parallel.expert);
    grouped_linear(rows, here, hidden_, width);
    grouped_linear(rows, here, hidden_, width);
    exponentials(rows * width);
    grouped_linear(rows, here, width, hidden_);
    begin("permutation");
    const double group = real(expert_group(recipe_.parallel));
    // With an exchange the assignments leave sorted, and what arrives is sorted and goes back.
    const bool exchange = exchanges_rows(recipe_.parallel);
    const double sent = exchange || group == 1 ? shard_ * top_k * real(recipe_.parallel.expert_tensor) : rows;
    const double combined = exchange || group == 1 ? shard_ : shard_ * group;
    pass(2 * sent * hidden_, (sent + combined) * hidden_);
    for (int i = 0; exchange && i < 2; ++i) pass(2 * rows * hidden_, 2 * rows * hidden_);
    pass((sent + combined) * hidden_, (2 * sent + combined) * hidden_);
    if (moe.num_shared_experts == 0) return;
    begin("shared experts");
    mlp(shard_, real(moe.num_shared_experts * moe.moe_intermediate_size));
    shared_experts_ = parts_.back().seconds;
  }

  void vocabulary() {
    const double own = real(model_.vocab_size) / tensor_;
    pass(2 * tokens_ * hidden_, 2 * tokens_ * hidden_ + own * hidden_);
    pass(2 * residual_ * hidden_, 3 * residual_ * hidden_);  // the last norm
    forward_ = backward_;                                    // no counting pass comes here
    linear(tokens_, hidden_, own);
    exponentials(tokens_ * own);
  }

  void optimizer() {
    double numbers = 0;
    for (const ParameterPlan& parameter : plan_parameters(recipe_, ranks_)) {
      const double own = real(parameter.count) * real(parameter.elements);
      numbers += recipe_.parallel.zero > 0 ? own / real(parameter.replicas) : own;
    }
    add(1, numbers * 8 * sum_bytes(recipe_) / machine_.optimizer_bytes_per_second, 2);
  }

  const Recipe& recipe_;
  const ModelRecipe& model_;
  const MachineModel& machine_;
  LayoutPlan layout_;
  int ranks_;
  double processors_, element_, tensor_, tokens_, shard_, residual_, hidden_;
  double forward_ = 0, backward_ = 0;  // how often a step does what is counted
  std::vector<NamedSeconds> parts_;
  double backward_seconds_ = 0, shared_experts_ = 0;
};

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

TimePlan plan_time(const Recipe& recipe, int ranks, const MachineModel& machine) {
  check(machine.precision == recipe.training.precision, Fault::request, "machine ", machine.name,
        ": its rates are for ", machine.precision, ", the recipe's training.precision is ",
        recipe.training.precision);
  Computing computing(recipe, ranks, machine);
  computing.run();
  const NetworkTime network(recipe, ranks, machine);
  const NetworkTime::Gradients gradients = network.gradients();
  const double dispatch = network.dispatch();
  TimePlan plan{.computing = computing.parts(),
                .network = {{"gradients", gradients.seconds},
                            {"parameters", network.parameters()},
                            {"activations", network.activations()},
                            {"dispatch", dispatch},
                            {"combine", network.combine()},
                            {"statistics", network.statistics()}}};
  // Gradients travel under the last micro-batch's backward, rows of dispatch under the shared experts.
  plan.hidden =
      std::min(gradients.seconds - gradients.last, machine.overlap * computing.backward_of_micro_batch()) +
      std::min(dispatch, machine.overlap * computing.of_shared_experts());
  return plan;
}

}  // namespace conclave
