#include "launch/tools/report/plan_tables.h"

#include "framework/base/error.h"
#include "launch/plan/plan.h"
#include "launch/train/model_size.h"
#include "launch/train/recipe_rules.h"

namespace conclave {
namespace {

using Json = nlohmann::ordered_json;

class Table {
 public:
  explicit Table(const char* title) : title_(title) {}
  void add(const char* name, const Json& value, const char* unit) { rows_.push_back({name, value, unit}); }
  void add_bytes(const char* name, double bytes) {
    if (bytes > 0) add(name, bytes, "bytes");
  }
  void add_count(const char* name, std::int64_t count) {
    if (count > 0) add(name, count, "count");
  }
  Json json() const { return {{"title", title_}, {"rows", rows_}}; }

 private:
  std::string title_;
  Json rows_ = Json::array();
};

Json parameter_table(const Recipe& recipe) {
  const ParameterCount all = count_parameters(recipe.model);
  Table table("Parameters");
  table.add_count("embedding", all.embedding);
  table.add_count("attention", all.attention);
  table.add_count("routers", all.router);
  table.add_count("experts", all.experts);
  table.add_count("shared experts", all.shared_experts);
  table.add_count("dense MLPs", all.dense_mlp);
  table.add_count("norms", all.norms);
  table.add_count("LM head", all.lm_head);
  table.add_count("all", all.total());
  table.add_count("active per token", count_active_parameters(recipe.model).total());
  table.add("operations per token, training",
            training_flops_per_token(recipe.model, recipe.data.sequence_length), "count");
  return table.json();
}

Json layout_table(const Recipe& recipe, int ranks) {
  const LayoutPlan layout = plan_layout(recipe, ranks);
  const ParallelRecipe& p = recipe.parallel;
  Table table("Layout");
  table.add("attention: tensor x data ranks", join_text(p.tensor, " x ", layout.data_ranks), "");
  table.add("experts: expert_tensor x expert x expert_data ranks",
            join_text(p.expert_tensor, " x ", p.expert, " x ", layout.expert_data_ranks), "");
  table.add_count("micro-batches per rank and step", layout.micro_steps);
  table.add_count("tokens per micro-batch", layout.tokens_per_micro_batch);
  table.add_count("rows of a rank's experts per micro-batch, expected", layout.expected_expert_rows);
  table.add_count("rows at worst", layout.worst_expert_rows);
  table.add_count("tokens per step, all ranks", layout.tokens_per_step);
  return table.json();
}

Json memory_table(const Recipe& recipe, int ranks, const DryStep& step) {
  const MemoryPlan memory = plan_memory(recipe, ranks, step);
  Table table("Memory per rank, planned");
  table.add_bytes("parameters", memory.parameters);
  table.add_bytes("their copy in bf16", memory.rounded_parameters);
  table.add_bytes("gradients", memory.gradients);
  table.add_bytes("AdamW moments", memory.moments);
  table.add_bytes("tables of where their elements lie", memory.pieces);
  table.add_bytes("reduce-scattered gradients", memory.reduced_gradients);
  table.add_bytes("selection bias and rounding", memory.router_states + memory.rounding);
  table.add_bytes("activations of a micro-batch, expected", memory.activations);
  table.add_bytes("activations at worst", memory.worst_activations);
  table.add_bytes("all, expected", memory.total());
  table.add_bytes("all, at worst", memory.worst_total());
  table.add_bytes("copy for checkpoints, on the host", memory.snapshot);
  return table.json();
}

Json network_table(const DryStep& step) {
  const NetworkPlan network = plan_network(step);
  Table table("Network per rank and step, planned");
  table.add_bytes("gradients", network.gradients);
  table.add_bytes("parameters", network.parameters);
  table.add_bytes("activations between tensor ranks", network.activations);
  table.add_bytes("rows dispatched to experts", network.dispatch);
  table.add_bytes("answers combined", network.combine);
  table.add_bytes("statistics", network.statistics);
  table.add("all", network.total(), "bytes");
  return table.json();
}

}  // namespace

std::vector<Json> plan_tables(const Recipe& recipe, int ranks) {
  if (ranks == 0) return {parameter_table(recipe)};
  validate_recipe(recipe, ranks);
  const DryStep step = plan_step(recipe, ranks);
  return {parameter_table(recipe), layout_table(recipe, ranks), memory_table(recipe, ranks, step),
          network_table(step)};
}

}  // namespace conclave
