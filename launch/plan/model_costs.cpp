#include "launch/plan/model_costs.h"

#include <map>

#include "framework/base/error.h"
#include "framework/base/text.h"
#include "launch/train/model.h"
#include "launch/train/model_size.h"
#include "parallel/counting.h"

namespace conclave {
namespace {

/// The parameters of one part of the model: elements of the whole model, and bytes of one rank with
/// their gradients and moments.
struct PartCost {
  std::int64_t elements = 0;
  double bytes = 0;
};

/// The model as the first rank holds it, without its memory.
std::map<ModelPart, PartCost> parts_of(const Recipe& recipe, int ranks) {
  const ParallelRecipe& p = recipe.parallel;
  const Mesh mesh(counting_communicator(0, ranks), degrees_of(p));
  ParameterSet parameters(mesh.layout(), 0);
  const Transformer transformer(parameters, recipe.model, FeedForwards(recipe.model), Recompute::none,
                                parallelism_of(recipe, mesh));
  const DType compute = dtype_of_precision(recipe.training.precision), kept = sum_type(compute);
  const auto number = static_cast<double>(element_bytes(kept));  // of a weight, gradient or moment
  const double copy = compute == kept ? 0 : static_cast<double>(element_bytes(compute));  // of the weights
  std::map<ModelPart, PartCost> parts;
  for (const Parameter& parameter : parameters.all()) {
    PartCost& part = parts[part_of_parameter(parameter.name)];
    part.elements += parameter.global_shape.elements();
    const double replicas = static_cast<double>(mesh.layout().degree(parameter.placement.replicas));
    part.bytes += static_cast<double>(parameter.shape.elements()) *
                  (2 * number + copy + 2 * number / (p.zero > 0 ? replicas : 1.0));
  }
  return parts;
}

}  // namespace

std::vector<CostRow> model_costs(const Recipe& recipe, int ranks) {
  const ModelRecipe& m = recipe.model;
  std::map<ModelPart, PartCost> parts = parts_of(recipe, ranks);
  const double layers = static_cast<double>(m.num_hidden_layers);
  const double scores = 12.0 * layers * (static_cast<double>(recipe.data.sequence_length) / 2.0) *
                        static_cast<double>(m.num_attention_heads) * static_cast<double>(m.head_dim);
  const auto products = [](std::int64_t parameters) { return 6.0 * static_cast<double>(parameters); };

  std::vector<CostRow> blocks;
  /// `used`: of the elements, what one token meets.
  const auto add = [&](ModelPart part, const std::string& name, std::int64_t used, double flops) {
    const PartCost& cost = parts[part];
    if (cost.elements > 0) blocks.push_back({name, cost.elements, used, flops, cost.bytes});
  };
  const auto add_whole = [&](ModelPart part, const std::string& name, double more_flops = 0) {
    add(part, name, parts[part].elements, products(parts[part].elements) + more_flops);
  };
  add_whole(ModelPart::attention,
            join_text("attention: ", m.num_attention_heads, " heads, ", m.num_key_value_heads,
                      " key-value heads, of ", m.head_dim),
            scores);
  const std::int64_t dense = m.num_hidden_layers - count_moe_layers(m);
  const std::string dense_blocks = dense == m.num_hidden_layers ? ""
                                   : dense_blocks_come_first(m) ? join_text(" of the first ", dense)
                                                                : join_text(" of ", dense);
  add_whole(ModelPart::dense_mlp, join_text("dense MLPs", dense_blocks, ": ", m.intermediate_size, " wide"));
  add_whole(ModelPart::router, join_text("routers: ", m.moe.router.kind, ", ", m.moe.num_experts_per_tok,
                                         " of ", m.moe.num_experts));
  const std::int64_t chosen =
      parts[ModelPart::experts].elements / m.moe.num_experts * m.moe.num_experts_per_tok;
  add(ModelPart::experts,
      join_text("experts: ", m.moe.num_experts, ", ", m.moe.moe_intermediate_size, " wide"), chosen,
      products(chosen));
  add_whole(ModelPart::shared_experts, join_text("shared experts: ", m.moe.num_shared_experts));
  add(ModelPart::norms, "norms", parts[ModelPart::norms].elements, 0);

  const PartCost embedding = parts[ModelPart::embedding], lm_head = parts[ModelPart::lm_head];
  std::vector<CostRow> rows = {
      {join_text("├─ embedding: ", m.vocab_size, " x ", m.hidden_size), embedding.elements,
       embedding.elements, 0, embedding.bytes},
      {join_text("├─ ", counted(m.num_hidden_layers, "block"), ", ", m.hidden_size, " wide")}};
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    rows.push_back(blocks[i]);
    rows.back().name = (i + 1 < blocks.size() ? "│  ├─ " : "│  └─ ") + blocks[i].name;
  }
  const double head = products(embedding.elements);
  if (m.tie_word_embeddings)
    rows[0].flops = head, rows[0].name += ", also the LM head";
  else
    rows.push_back({"├─ LM head", lm_head.elements, lm_head.elements, head, lm_head.bytes});
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
