// Memory of a rank. Parameters and states are sums over plan_parameters(). Activations are a walk through one
// micro-batch with sizes alone (memory_walk.h): the layers' forward functions again, op by op, so what is
// alive when is what the layers do. Kept for backward without recomputation; T tokens of the micro-batch, t
// tensor ranks, A = T rows of the residual stream (T / t with `sequence`), S = T / t rows of the shard, h
// hidden, q and v query and key-value columns (heads * head_dim / t):
//
//   residual stream   block's input, its sum with attention              [A, h] each; a factor per row and
//   norm attention         normed input                                       [T, h], gathered with
//   `sequence`
//                     projected queries, keys (with qk_norm)             [T, q], [T, v]; a factor per head
//                     rotated queries, keys; values; heads' output       [T, q], [T, v], [T, v], [T, q]
//                     log of the softmax's sum                           [T, heads / t]
//   dense MLP         normed input (gathered); gate, up, product         [T, h]; [T, intermediate / t] each
//   router            normed input; probabilities, one factor            [A, h]; [S, experts + 1]
//                     the scores as well where they are sigmoids         [S, experts]
//                     choice, weights                                    [S, k] each
//                     with pools, while it routes, the masked scores     [S, experts]; sums by document are
//                     left out: how many documents there are hangs on the text
//   shared experts    gate, up, product                                  [S, shared * width] each
//   experts, R rows   input; gate, up, product                           [R, h]; [R, width / expert_tensor]
//     on this rank    output                                             [R, h]
//     all_to_all      the answers instead of the output                  [S k expert_tensor, h]
//     all_gather      the weights of the whole group as well             [S G, k]
//     orders          three int32 per row; with all_to_all two int32 per arriving row as well
//
// Beyond dispatch_rows the exchange goes in rounds that keep nothing but where rows go. With recompute=block
// a block keeps its input, and everything above is there for one block at a time.
#include <algorithm>
#include <cmath>

#include "framework/recipe/memory_walk.h"
#include "framework/recipe/model_size.h"
#include "framework/recipe/plan_parts.h"

namespace conclave {
namespace {

class MicroBatch {
 public:
  MicroBatch(const Recipe& recipe, const LayoutPlan& layout, const std::vector<ExchangeRows>& exchanges)
      : recipe_(recipe),
        model_(recipe.model),
        parallel_(recipe.parallel),
        exchanges_(exchanges),
        tokens_(real(layout.tokens_per_micro_batch)),
        shard_(real(layout.tokens_per_shard)),
        hidden_(real(recipe.model.hidden_size)),
        tensor_(real(recipe.parallel.tensor)),
        micro_steps_(layout.micro_steps) {}

  /// Trainer::step, as far as it takes memory: the most that is live, in bytes.
  double peak() {
    SizedTape tape(use_, element_bytes(recipe_), sum_bytes(recipe_));
    std::vector<SizedBuffer> inputs;  // tokens, targets, positions, document starts of all micro-batches
    for (std::int64_t i = 0; i < micro_steps_ * 4; ++i) inputs.push_back(tape.bytes(tokens_ * 4));
    {
      const SizedValue hidden = forward(tape);
      loss(tape, hidden);
    }
    tape.backward();
    return use_.peak;
  }

 private:
  // layers/parallelism.h
  SizedValue enter_tensor(SizedTape& tape, const SizedValue& x) const {
    if (tensor_ == 1) return x;
    if (parallel_.sequence) return move_rows(tape, x, tokens_, SumsIn::backward);
    const SizedValue same = tape.output(x.rows, x.width, x.element, x.value);
    tape.record({{x, Flow::handed_on}}, same, {}, x.element == tape.sum() ? 0 : x.elements() * tape.sum());
    return same;
  }
  SizedValue leave_tensor(SizedTape& tape, const SizedValue& x) const {
    if (tensor_ == 1) return x;
    return parallel_.sequence ? move_rows(tape, x, shard_, SumsIn::forward) : sum_partial(tape, x);
  }
  SizedValue enter_shard(SizedTape& tape, const SizedValue& x) const {
    return tensor_ == 1 || parallel_.sequence ? x : take_rows(tape, x, shard_);
  }
  SizedValue leave_shard(SizedTape& tape, const SizedValue& x) const {
    return tensor_ == 1 || parallel_.sequence ? x : move_rows(tape, x, tokens_);
  }

  // layers/attention.cpp
  SizedValue attend(SizedTape& tape, const SizedValue& residual) const {
    const double head = real(model_.head_dim), heads = real(model_.num_attention_heads) / tensor_,
                 kv_heads = real(model_.num_key_value_heads) / tensor_;
    const double threads = real(std::max<std::int64_t>(recipe_.training.threads, 1));
    const SizedValue x = enter_tensor(tape, residual);
    const auto prepare = [&](SizedValue projected, double count) {
      if (model_.qk_norm) projected = rms_norm(tape, projected, model_.qk_norm_over == "head" ? count : 1);
      return rope(tape, projected);
    };
    const SizedValue query = prepare(linear(tape, x, heads * head), heads);
    const SizedValue key = prepare(linear(tape, x, kv_heads * head), kv_heads);
    const SizedValue value = linear(tape, x, kv_heads * head);
    const double length = real(recipe_.data.sequence_length), block = 64;  // of queries
    const AttentionRoom room{threads * (block * (2 * head + length) + 2 * length * head),
                             threads * (block * (3 * head + 2 * length) + 4 * length * head)};
    const SizedValue mixed = attention(tape, query, key, value, heads, room);
    return leave_tensor(tape, linear(tape, mixed, hidden_));
  }

  // layers/mlp.h, layers/experts.h
  SizedValue mlp(SizedTape& tape, const SizedValue& x, double width) const {
    return linear(tape, swiglu(tape, linear(tape, x, width), linear(tape, x, width)), hidden_);
  }
  SizedValue experts(SizedTape& tape, const SizedValue& rows) const {
    return mlp(tape, rows, real(model_.moe.moe_intermediate_size / parallel_.expert_tensor));
  }

  // layers/dispatcher.cpp: what is left of a dispatch that has begun.
  using Finish = std::function<SizedValue()>;
  Finish dispatch_here(SizedTape& tape, const SizedValue& x, const SizedValue& weights,
                       const ExchangeRows& rows) const {
    const SizedOrder order = sort_rows(tape, weights.elements(), rows.computed);
    return [this, &tape, order, weights, sorted = permute_rows(tape, x, order)] {
      return combine_rows(tape, experts(tape, sorted), weights, order);
    };
  }
  /// Two int32 per row: what arrives is a row of its own for each assignment.
  static SizedOrder order_of_arrivals(SizedTape& tape, double rows) {
    return {{tape.bytes(rows * 4), tape.bytes(rows * 4)}, rows};
  }
  Finish exchange_round(SizedTape& tape, const SizedValue& x, const SizedValue& weights,
                        const ExchangeRows::Round& rows) const {
    const SizedOrder outgoing = sort_rows(tape, weights.elements(), rows.sent),
                     here = order_of_arrivals(tape, rows.computed);
    const SizedArrival travelling = start_moving_rows(tape, permute_rows(tape, x, outgoing), rows.computed);
    return [this, &tape, travelling, outgoing, here, weights, sent = rows.sent] {
      const SizedValue arrived = finish_moving_rows(tape, travelling);
      const SizedValue outputs = experts(tape, permute_rows(tape, arrived, here));
      const SizedValue returned = move_rows(tape, permute_rows(tape, outputs, here), sent);
      return combine_rows(tape, returned, weights, outgoing);
    };
  }
  Finish dispatch_all_to_all(SizedTape& tape, const SizedValue& x, const SizedValue& chosen_weights,
                             const ExchangeRows& rows) const {
    const SizedValue weights = repeat_columns(tape, chosen_weights, real(parallel_.expert_tensor));
    if (rows.rounds.size() == 1) {
      const SizedBuffer destinations =
          parallel_.expert_tensor == 1 ? nullptr : tape.bytes(weights.elements() * 4);
      return exchange_round(tape, x, weights, rows.rounds[0]);
    }
    return [this, &tape, x, weights, rounds = rows.rounds] {
      SizedValue sum;
      for (std::size_t r = 0; r < rounds.size(); ++r) {
        const SizedBuffer of_round = tape.bytes(weights.elements() * 4);
        const SizedValue part = tape.recompute(
            {x, weights},
            [this, round = rounds[r], of_round](SizedTape& inner, const std::vector<SizedValue>& in) {
              return exchange_round(inner, in[0], in[1], round)();
            });
        sum = r == 0 ? part : add(tape, sum, part);
      }
      return sum;
    };
  }
  Finish dispatch_all_gather(SizedTape& tape, const SizedValue& x, const SizedValue& weights,
                             const ExchangeRows& rows) const {
    const double everybody = shard_ * real(expert_group(parallel_));
    const SizedValue all_x = move_rows(tape, x, everybody, SumsIn::backward),
                     all_weights = move_rows(tape, weights, everybody, SumsIn::backward);
    const SizedBuffer chosen = tape.bytes(all_weights.elements() * 4);
    const SizedOrder order = sort_rows(tape, all_weights.elements(), rows.computed);
    return [this, &tape, order, all_weights, sorted = permute_rows(tape, all_x, order)] {
      return move_rows(tape, combine_rows(tape, experts(tape, sorted), all_weights, order), shard_,
                       SumsIn::forward);
    };
  }

  SizedValue route_tokens(SizedTape& tape, const SizedValue& x, SizedBuffer& chosen) const {
    const SizedValue logits = linear(tape, to_sum_type(tape, x), real(model_.moe.num_experts));
    const SizedBuffer masked =
        model_.moe.router.pool.maximum > 0 ? tape.sums(logits.elements()) : nullptr;  // gone with its op
    return route(tape, logits, real(model_.moe.num_experts_per_tok), model_.moe.router.kind == "sigmoid",
                 chosen);
  }

  // layers/moe.cpp
  SizedValue moe(SizedTape& tape, const SizedValue& residual, const ExchangeRows& rows) const {
    const SizedValue x = enter_shard(tape, residual);
    SizedBuffer chosen;
    const SizedValue weights = route_tokens(tape, x, chosen);
    const Finish finish = expert_group(parallel_) == 1 ? dispatch_here(tape, x, weights, rows)
                          : exchanges_rows(parallel_)  ? dispatch_all_to_all(tape, x, weights, rows)
                                                       : dispatch_all_gather(tape, x, weights, rows);
    if (model_.moe.num_shared_experts == 0) return leave_shard(tape, finish());
    const SizedValue shared =
        mlp(tape, x, real(model_.moe.num_shared_experts * model_.moe.moe_intermediate_size));
    return leave_shard(tape, add(tape, finish(), shared));
  }

  // layers/transformer.cpp
  SizedValue block(SizedTape& tape, const SizedValue& x, std::int64_t layer) const {
    const std::int64_t dense = dense_layers();
    const SizedValue attended = add(tape, x, attend(tape, rms_norm(tape, x, 1)));
    const SizedValue normed = rms_norm(tape, attended, 1);
    if (layer >= dense)
      return add(tape, attended, moe(tape, normed, exchanges_[static_cast<std::size_t>(layer - dense)]));
    const SizedValue partial =
        mlp(tape, enter_tensor(tape, normed), real(model_.intermediate_size) / tensor_);
    return add(tape, attended, leave_tensor(tape, partial));
  }
  std::int64_t dense_layers() const { return model_.num_hidden_layers - count_moe_layers(model_); }
  SizedValue forward(SizedTape& tape) const {
    SizedValue hidden;
    if (tensor_ == 1) {
      hidden = embedding(tape, tokens_, hidden_);
    } else {
      hidden = leave_tensor(tape, embedding(tape, tokens_, hidden_));
    }
    for (std::int64_t layer = 0; layer < model_.num_hidden_layers; ++layer)
      hidden = recipe_.training.recompute == "block"
                   ? tape.recompute({hidden},
                                    [this, layer](SizedTape& inner, const std::vector<SizedValue>& in) {
                                      return block(inner, in[0], layer);
                                    })
                   : block(tape, hidden, layer);
    return rms_norm(tape, hidden, 1);
  }

  // autograd/ops/vocabulary.cpp: logits come 512 rows at a time and turn into gradients at once.
  void loss(SizedTape& tape, const SizedValue& hidden) const {
    const SizedValue x = enter_tensor(tape, hidden);
    const double chunk = std::min(512.0, tokens_);
    const double logit_count = chunk * real(model_.vocab_size) / tensor_;
    const SizedBuffer logits = tape.sums(logit_count);
    const SizedBuffer rounded =
        x.element == tape.sum() ? nullptr : tape.bytes(logit_count * x.element);  // their gradients
    SizedBuffer dx = tape.bytes(x.bytes());
    tape.bytes(chunk * 3 * 8 * (tensor_ > 1 ? tensor_ + 1 : 1));  // of all tensor ranks, and joined
    tape.record([gradient = x.gradient, dx] { *gradient = dx; });
  }

  const Recipe& recipe_;
  const ModelRecipe& model_;
  const ParallelRecipe& parallel_;
  const std::vector<ExchangeRows>& exchanges_;
  double tokens_, shard_, hidden_, tensor_;
  std::int64_t micro_steps_;
  PlannedUse use_;
};

double same_in_all_blocks(const Recipe& recipe, int ranks, const ExchangeRows& rows) {
  return plan_activations(
      recipe, ranks,
      std::vector<ExchangeRows>(static_cast<std::size_t>(count_moe_layers(recipe.model)), rows));
}

/// Of the expected sums, largest first.
std::vector<NamedBytes> largest_buffers(const Recipe& recipe, int ranks) {
  const ModelRecipe& m = recipe.model;
  const LayoutPlan layout = plan_layout(recipe, ranks);
  const double tokens = real(layout.tokens_per_micro_batch), rows = real(layout.expected_expert_rows);
  const double bytes = element_bytes(recipe), sums = sum_bytes(recipe), cut = real(recipe.parallel.tensor);
  const double vocabulary = real(m.vocab_size) / cut;
  std::vector<NamedBytes> buffers = {
      {"embedding", vocabulary * real(m.hidden_size) * sums},
      {"LM head", m.tie_word_embeddings ? 0 : vocabulary * real(m.hidden_size) * sums},
      {"one chunk of logits", std::min(512.0, tokens) * vocabulary * sums},
      {"hidden layer of the chosen experts, one block",
       rows * real(m.moe.moe_intermediate_size / recipe.parallel.expert_tensor) * bytes},
      {"rows sent to experts, one block", rows * real(m.hidden_size) * bytes},
      {"queries of one block", tokens * real(m.num_attention_heads) / cut * real(m.head_dim) * bytes},
  };
  for (const ParameterPlan& parameter : plan_parameters(recipe, ranks))
    if (parameter.name == "experts")
      buffers.push_back({"one projection of one block's experts", real(parameter.elements) * sums});
  std::erase_if(buffers, [](const NamedBytes& buffer) { return buffer.bytes == 0; });
  std::stable_sort(buffers.begin(), buffers.end(),
                   [](const NamedBytes& a, const NamedBytes& b) { return a.bytes > b.bytes; });
  return buffers;
}

}  // namespace

double plan_activations(const Recipe& recipe, int ranks, const std::vector<ExchangeRows>& exchanges) {
  return MicroBatch(recipe, plan_layout(recipe, ranks), exchanges).peak();
}

MemoryPlan plan_memory(const Recipe& recipe, int ranks) {
  const double bytes = sum_bytes(recipe), rounded_bytes = element_bytes(recipe);
  MemoryPlan plan;
  double pieces = 0;  // kernels/pieces.h
  for (const ParameterPlan& parameter : plan_parameters(recipe, ranks)) {
    const double room = room_of(parameter) * bytes;
    plan.parameters += room;
    plan.gradients += room;
    if (rounded_bytes != bytes) plan.rounded_parameters += room_of(parameter) * rounded_bytes;
    plan.snapshot += 3 * real(parameter.count) * real(parameter.elements) * bytes / real(parameter.replicas);
    // Two moments: of every element, or of an even part of each bucket and a buffer for that part's sum. A
    // gap at the end of a parameter takes no moments; here the rank without gaps counts.
    if (recipe.parallel.zero > 0 && parameter.replicas > 1) {
      plan.moments += 2 * room / real(parameter.replicas);
      pieces +=
          real(parameter.count) * std::ceil(real(parameter.elements) / 16384 / real(parameter.replicas));
      plan.reduced_gradients += room / real(parameter.replicas);
    } else {
      plan.moments += 2 * real(parameter.count) * real(parameter.elements) * bytes;
      pieces += real(parameter.count) * std::ceil(real(parameter.elements) / 16384);
    }
  }
  plan.pieces = 2 * (allocated_bytes(pieces * 3 * 8) + allocated_bytes(pieces * 2 * 8));
  const MoeRecipe& moe = recipe.model.moe;
  if (moe.router.bias.rate > 0)
    plan.selection_bias =
        allocated_bytes(real(count_moe_layers(recipe.model)) * real(moe.num_experts) * sizeof(double));
  // Each of these is one buffer, the moments two.
  plan.rounding = allocated_bytes(plan.parameters) - plan.parameters + allocated_bytes(plan.gradients) -
                  plan.gradients + 2 * allocated_bytes(plan.moments / 2) - plan.moments;
  if (plan.rounded_parameters > 0)
    plan.rounding += allocated_bytes(plan.rounded_parameters) - plan.rounded_parameters;

  const LayoutPlan layout = plan_layout(recipe, ranks);
  const ExchangeRows even = even_rows(recipe, layout), worst = worst_rows(recipe, layout);
  plan.activations = same_in_all_blocks(recipe, ranks, even);
  plan.worst_activations = same_in_all_blocks(recipe, ranks, worst);
  if (worst.rounds.size() > 1) {
    // Just under dispatch_rows all blocks keep their rows; far beyond it one round is there at a time.
    ExchangeRows just_under = worst;
    just_under.rounds = {{worst.sent, real(recipe.parallel.dispatch_rows)}};
    plan.worst_activations = std::max(plan.worst_activations, same_in_all_blocks(recipe, ranks, just_under));
  }
  plan.largest_buffers = largest_buffers(recipe, ranks);
  return plan;
}

}  // namespace conclave
