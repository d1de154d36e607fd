#include "framework/recipe/plan.h"

#include <algorithm>

#include "framework/base/error.h"
#include "framework/recipe/model_size.h"
#include "framework/recipe/plan_parts.h"

namespace conclave {
namespace {

/// Rounds in which a group goes when the rank with the most rows receives `rows`.
std::int64_t rounds_of(const ParallelRecipe& p, std::int64_t rows) {
  if (p.dispatch_rows == 0 || !exchanges_rows(p)) return 1;
  return std::max<std::int64_t>(1, (rows + p.dispatch_rows - 1) / p.dispatch_rows);
}

/// Full rounds: which of a rank's rows travel in which depends on the other ranks', and in the worst case all
/// that dispatch_rows lets through.
std::vector<ExchangeRows::Round> full_rounds(const ParallelRecipe& p, const ExchangeRows& rows,
                                             std::int64_t most_received) {
  const std::int64_t count = rounds_of(p, most_received);
  if (count == 1) return {{rows.sent, rows.computed}};
  const double bound = real(p.dispatch_rows);
  return std::vector<ExchangeRows::Round>(
      static_cast<std::size_t>(count),
      {std::min(rows.sent, bound * real(expert_group(p))), std::min(rows.computed, bound)});
}

}  // namespace

LayoutPlan plan_layout(const Recipe& recipe, int ranks) {
  const std::int64_t rows = recipe.training.micro_batch_size, length = recipe.data.sequence_length;
  const ParallelRecipe& p = recipe.parallel;
  const MoeRecipe& moe = recipe.model.moe;
  const std::int64_t group = p.expert * p.expert_tensor;
  LayoutPlan plan;
  plan.ranks = ranks;
  plan.data_ranks = ranks / p.tensor;
  plan.expert_data_ranks = ranks / group;
  plan.micro_steps = recipe.training.global_batch_size / (rows * plan.data_ranks);
  plan.tokens_per_step = recipe.training.global_batch_size * length;
  plan.tokens_per_micro_batch = rows * length;
  plan.tokens_per_shard = plan.tokens_per_micro_batch / p.tensor;
  if (count_moe_layers(recipe.model) == 0) return plan;
  // The group's tokens go k ways each, to every expert_tensor rank of an expert. At worst every token chooses
  // as many of one rank's experts as it may.
  plan.expected_expert_rows = plan.tokens_per_shard * moe.num_experts_per_tok * p.expert_tensor;
  plan.worst_expert_rows =
      plan.tokens_per_shard * group * std::min(moe.num_experts_per_tok, moe.num_experts / p.expert);
  return plan;
}

std::vector<ParameterPlan> plan_parameters(const Recipe& recipe, int ranks) {
  const ModelRecipe& m = recipe.model;
  const ParallelRecipe& p = recipe.parallel;
  const std::int64_t hidden = m.hidden_size, layers = m.num_hidden_layers, moe_layers = count_moe_layers(m);
  // The three kinds of replicas (layers/parallelism.h): of what tensor ranks share out; of what every rank
  // uses on its own tokens or heads; of what expert ranks share out.
  const std::int64_t data = ranks / p.tensor, everybody = ranks,
                     expert_data = ranks / (p.expert * p.expert_tensor);
  const std::int64_t residual = shards_sequence(p) ? everybody : data;
  std::vector<ParameterPlan> plan = {
      {"embedding and LM head", m.tie_word_embeddings ? 1 : 2, m.vocab_size / p.tensor * hidden, data},
      {"query and output projections", 2 * layers, m.num_attention_heads / p.tensor * m.head_dim * hidden,
       data},
      {"key and value projections", 2 * layers, m.num_key_value_heads / p.tensor * m.head_dim * hidden, data},
      {"norms of queries", m.qk_norm ? layers : 0, qk_norm_widths(m).query, everybody},
      {"norms of keys", m.qk_norm ? layers : 0, qk_norm_widths(m).key, everybody},
      {"norms of the residual stream", 2 * layers + 1, hidden, residual},
      {"dense MLPs", 3 * (layers - moe_layers), m.intermediate_size / p.tensor * hidden, data},
      {"routers", moe_layers, m.moe.num_experts * hidden, everybody},
      {"shared experts", m.moe.num_shared_experts > 0 ? 3 * moe_layers : 0,
       m.moe.num_shared_experts * m.moe.moe_intermediate_size * hidden, everybody},
      {"experts", 3 * moe_layers,
       m.moe.num_experts / p.expert * (m.moe.moe_intermediate_size / p.expert_tensor) * hidden, expert_data},
  };
  std::erase_if(plan, [](const ParameterPlan& parameter) { return parameter.count == 0; });
  return plan;
}

ExchangeRows even_rows(const Recipe& recipe, const LayoutPlan& layout) {
  const double group = real(expert_group(recipe.parallel)), rows = real(layout.expected_expert_rows);
  ExchangeRows even;
  even.sent = even.computed = rows;
  even.leaving = even.arriving = rows * (group - 1) / group;
  even.rounds = full_rounds(recipe.parallel, even, layout.expected_expert_rows);
  return even;
}

ExchangeRows worst_rows(const Recipe& recipe, const LayoutPlan& layout) {
  ExchangeRows worst = even_rows(recipe, layout);
  const double own = real(layout.worst_expert_rows / expert_group(recipe.parallel));
  worst.leaving = worst.sent - own;
  worst.computed = real(layout.worst_expert_rows);
  worst.arriving = worst.computed - own;
  worst.rounds = full_rounds(recipe.parallel, worst, layout.worst_expert_rows);
  return worst;
}

ExchangeRows rows_of_rank(const Recipe& recipe, const std::vector<std::int64_t>& sent, int rank) {
  const std::int64_t ranks = expert_group(recipe.parallel);
  check(static_cast<std::int64_t>(sent.size()) == ranks * ranks && rank < ranks,
        "rows_of_rank: ", sent.size(), " row counts came for rank ", rank, " of ", ranks);
  const auto at = [&](std::int64_t from, std::int64_t to) {
    return sent[static_cast<std::size_t>(from * ranks + to)];
  };
  std::vector<std::int64_t> received(static_cast<std::size_t>(ranks));
  for (std::int64_t i = 0; i < ranks * ranks; ++i)
    received[static_cast<std::size_t>(i % ranks)] += sent[static_cast<std::size_t>(i)];
  const std::int64_t count = rounds_of(recipe.parallel, *std::max_element(received.begin(), received.end()));
  ExchangeRows rows;
  rows.rounds.resize(static_cast<std::size_t>(count));
  rows.computed = real(received[static_cast<std::size_t>(rank)]);
  // A receiver's rows are numbered by sender; a round takes the next dispatch_rows of them.
  const auto in_round = [&](std::int64_t round, std::int64_t begin, std::int64_t end) {
    if (count == 1) return real(end - begin);
    const std::int64_t bound = recipe.parallel.dispatch_rows;
    return real(
        std::max<std::int64_t>(0, std::min(end, (round + 1) * bound) - std::max(begin, round * bound)));
  };
  for (std::int64_t receiver = 0; receiver < ranks; ++receiver) {
    std::int64_t begin = 0;
    for (std::int64_t sender = 0; sender < rank; ++sender) begin += at(sender, receiver);
    rows.sent += real(at(rank, receiver));
    for (std::int64_t round = 0; round < count; ++round)
      rows.rounds[static_cast<std::size_t>(round)].sent += in_round(round, begin, begin + at(rank, receiver));
  }
  for (std::int64_t round = 0; round < count; ++round)
    rows.rounds[static_cast<std::size_t>(round)].computed =
        in_round(round, 0, received[static_cast<std::size_t>(rank)]);
  rows.leaving = rows.sent - real(at(rank, rank));
  rows.arriving = rows.computed - real(at(rank, rank));
  return rows;
}

}  // namespace conclave
