#include "launch/convert/architecture.h"

#include "framework/base/error.h"
#include "framework/recipe/model_size.h"
#include "framework/recipe/nearest.h"

namespace conclave {

const std::vector<const Architecture*>& architectures() {
  static const std::vector<const Architecture*> all = {&qwen3_moe, &olmoe, &mixtral,
                                                       &glm4_moe,  &qwen3, &llama};
  return all;
}

const Architecture& architecture_named(const std::string& model_type) {
  std::vector<std::string> names;
  for (const Architecture* architecture : architectures()) {
    if (architecture->model_type == model_type) return *architecture;
    names.emplace_back(architecture->model_type);
  }
  fail(Fault::request, "The architecture '", model_type, "' came; the known ones are ", join_words(names),
       did_you_mean(model_type, names), ".");
}

std::string why_not(const Architecture& architecture, const ModelRecipe& model) {
  std::string reasons;
  for (const Demand& demand : architecture.demands(model))
    if (!demand.holds) reasons += (reasons.empty() ? "" : "; ") + demand.otherwise;
  return reasons;
}

const Architecture& choose_architecture(const std::string& model_type, const ModelRecipe& model) {
  if (!model_type.empty()) {
    const Architecture& asked = architecture_named(model_type);
    const std::string reasons = why_not(asked, model);
    check(reasons.empty(), Fault::request, asked.class_name, " cannot express this model: ", reasons, ".");
    return asked;
  }
  std::string all;
  for (const Architecture* architecture : architectures()) {
    const std::string reasons = why_not(*architecture, model);
    if (reasons.empty()) return *architecture;
    all += join_text("\n  ", architecture->class_name, ": ", reasons);
  }
  fail(Fault::request, "No architecture that Conclave exports to can express this model:", all);
}

void write_common_config(const ModelRecipe& m, nlohmann::ordered_json& config) {
  config["vocab_size"] = m.vocab_size;
  config["hidden_size"] = m.hidden_size;
  config["intermediate_size"] = m.intermediate_size;
  config["num_hidden_layers"] = m.num_hidden_layers;
  config["num_attention_heads"] = m.num_attention_heads;
  config["num_key_value_heads"] = m.num_key_value_heads;
  config["head_dim"] = m.head_dim;
  config["hidden_act"] = "silu";
  config["rms_norm_eps"] = m.rms_norm_eps;
  config["rope_theta"] = m.rope_theta;
  config["rope_scaling"] = nullptr;
  config["attention_bias"] = false;
  config["attention_dropout"] = 0.0;
  config["tie_word_embeddings"] = m.tie_word_embeddings;
  config["initializer_range"] = m.initializer_range;
  config["use_cache"] = true;
}

void read_common_config(const ConfigReader& config, ModelRecipe& m) {
  m.vocab_size = config.whole("vocab_size");
  m.hidden_size = config.whole("hidden_size");
  m.num_hidden_layers = config.whole("num_hidden_layers");
  m.num_attention_heads = config.whole("num_attention_heads");
  m.num_key_value_heads =
      config.has("num_key_value_heads") ? config.whole("num_key_value_heads") : m.num_attention_heads;
  m.head_dim = config.has("head_dim") ? config.whole("head_dim") : m.hidden_size / m.num_attention_heads;
  m.rms_norm_eps = config.real("rms_norm_eps");
  // transformers 5 keeps all of the rotary positions in one section, which 4 knew as rope_scaling.
  const ConfigReader rope =
      config.section(config.has("rope_parameters") ? "rope_parameters" : "rope_scaling");
  m.rope_theta = rope.has("rope_theta") ? rope.real("rope_theta") : config.real_or("rope_theta", 10000.0);
  for (const char* key : {"rope_type", "type"})
    rope.expect(key, "default", "Conclave has no scaled rotary positions");
  config.expect("hidden_act", "silu", "Conclave's MLPs are SwiGLU");
  config.expect("attention_bias", false, "Conclave's projections have no biases");
  config.expect("mlp_bias", false, "Conclave's projections have no biases");
  config.expect("use_sliding_window", false, "Conclave's attention sees the whole document");
  m.initializer_range = config.real_or("initializer_range", m.initializer_range);
  m.partial_rotary_factor = 1;
  m.qk_norm = false;
  m.qk_norm_over = "head";
}

double router_aux_loss_coefficient(const ModelRecipe& m) {
  double weight = 0;
  for (const BalanceRecipe& term : m.moe.balance)
    if (term.expert_groups == 0) weight += term.coefficient;
  if (m.moe.layer_reduction == "sum") weight *= static_cast<double>(count_moe_layers(m));
  return weight / static_cast<double>(m.moe.num_experts_per_tok);
}

std::string usual_tensor_name(const std::string& parameter, std::int64_t expert) {
  if (expert < 0) return parameter;
  const std::string stack = ".experts.";
  const std::size_t at = parameter.find(stack) + stack.size();
  return join_text(parameter.substr(0, at), expert, ".", parameter.substr(at));
}

std::vector<Demand> plain_router_demands(const ModelRecipe& m) {
  const RouterRecipe& router = m.moe.router;
  return {{router.kind == "softmax", "its routers use " + router.kind + " scores"},
          {router.n_group == 1, join_text("its experts are in ", router.n_group, " groups")},
          {router.routed_scaling_factor == 1,
           join_text("it scales the routed experts by ", router.routed_scaling_factor)},
          {router.bias.rate == 0, "its routers choose with a selection bias"},
          {m.moe.num_shared_experts == 0, "it has shared experts"}};
}

std::vector<Demand> joined(std::initializer_list<std::vector<Demand>> lists) {
  std::vector<Demand> all;
  for (const std::vector<Demand>& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

Demand has_experts(const ModelRecipe& m) {
  return {count_moe_layers(m) > 0, "none of its blocks has experts"};
}

Demand has_no_dense_blocks(const ModelRecipe& m) {
  return {m.moe.first_k_dense_replace == 0,
          join_text("its first ", m.moe.first_k_dense_replace,
                    m.moe.first_k_dense_replace == 1 ? " block is dense" : " blocks are dense")};
}

Demand has_whole_rotation(const ModelRecipe& m) {
  return {rotary_width(m) == m.head_dim,
          join_text("positions turn only ", rotary_width(m), " of the ", m.head_dim, " elements of a head")};
}

Demand has_no_qk_norm(const ModelRecipe& m) {
  return {!m.qk_norm, "it normalises queries and keys"};
}

Demand has_qk_norm_by_head(const ModelRecipe& m) {
  return {m.qk_norm && m.qk_norm_over == "head", m.qk_norm ? "it normalises queries and keys over all heads"
                                                           : "it does not normalise queries and keys"};
}

}  // namespace conclave
