#include "launch/plan/model_costs.h"

#include <initializer_list>

#include "framework/base/error.h"
#include "framework/base/text.h"
#include "framework/recipe/model_size.h"
#include "framework/recipe/plan.h"

namespace conclave {
namespace {

/// Of the parts of plan_parameters with these names.
double bytes_of(const Recipe& recipe, int ranks, std::initializer_list<const char*> names) {
  const double number = recipe.training.precision == "fp64" ? 8 : 4;  // of a weight, gradient or moment
  const double copy = recipe.training.precision == "bf16" ? 2 : 0;    // of the weights, in bf16
  double bytes = 0;
  for (const ParameterPlan& part : plan_parameters(recipe, ranks))
    for (const char* name : names)
      if (part.name == name)
        bytes += static_cast<double>(part.count) * static_cast<double>(part.elements) *
                 (2 * number + copy +
                  2 * number / (recipe.parallel.zero > 0 ? static_cast<double>(part.replicas) : 1.0));
  return bytes;
}

}  // namespace

std::vector<CostRow> model_costs(const Recipe& recipe, int ranks) {
  const ModelRecipe& m = recipe.model;
  const ParameterCount all = count_parameters(m), active = count_active_parameters(m);
  const double layers = static_cast<double>(m.num_hidden_layers);
  const double scores = 12.0 * layers * (static_cast<double>(recipe.data.sequence_length) / 2.0) *
                        static_cast<double>(m.num_attention_heads) * static_cast<double>(m.head_dim);
  const auto products = [](std::int64_t parameters) { return 6.0 * static_cast<double>(parameters); };
  const auto bytes = [&](std::initializer_list<const char*> names) { return bytes_of(recipe, ranks, names); };
  const double ends = bytes({"embedding and LM head"}) / (m.tie_word_embeddings ? 1 : 2);

  std::vector<CostRow> blocks;
  const auto add = [&](const std::string& name, std::int64_t total, std::int64_t used, double flops,
                       double memory) {
    if (total > 0) blocks.push_back({name, total, used, flops, memory});
  };
  add(join_text("attention: ", m.num_attention_heads, " heads, ", m.num_key_value_heads,
                " key-value heads, of ", m.head_dim),
      all.attention, active.attention, products(active.attention) + scores,
      bytes({"query and output projections", "key and value projections"}));
  const std::string dense_blocks = m.moe.first_k_dense_replace < m.num_hidden_layers
                                       ? join_text(" of the first ", m.moe.first_k_dense_replace)
                                       : "";
  add(join_text("dense MLPs", dense_blocks, ": ", m.intermediate_size, " wide"), all.dense_mlp,
      active.dense_mlp, products(active.dense_mlp), bytes({"dense MLPs"}));
  add(join_text("routers: ", m.moe.router.kind, ", ", m.moe.num_experts_per_tok, " of ", m.moe.num_experts),
      all.router, active.router, products(active.router), bytes({"routers"}));
  add(join_text("experts: ", m.moe.num_experts, ", ", m.moe.moe_intermediate_size, " wide"), all.experts,
      active.experts, products(active.experts), bytes({"experts"}));
  add(join_text("shared experts: ", m.moe.num_shared_experts), all.shared_experts, active.shared_experts,
      products(active.shared_experts), bytes({"shared experts"}));
  add("norms", all.norms, active.norms, 0,
      bytes({"norms of queries and keys", "norms of the residual stream"}));

  std::vector<CostRow> rows = {
      {join_text("├─ embedding: ", m.vocab_size, " x ", m.hidden_size), all.embedding, active.embedding, 0,
       ends},
      {join_text("├─ ", counted(m.num_hidden_layers, "block"), ", ", m.hidden_size, " wide")}};
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    rows.push_back(blocks[i]);
    rows.back().name = (i + 1 < blocks.size() ? "│  ├─ " : "│  └─ ") + blocks[i].name;
  }
  const double head = products(active.embedding);
  if (m.tie_word_embeddings)
    rows[0].flops = head, rows[0].name += ", also the LM head";
  else
    rows.push_back({"├─ LM head", all.lm_head, active.lm_head, head, ends});
  CostRow sum{"└─ all"};
  for (const CostRow& row : rows) {
    sum.total += row.total;
    sum.active += row.active;
    sum.flops += row.flops;
    sum.bytes += row.bytes;
  }
  rows.push_back(sum);
  return rows;
}

}  // namespace conclave
