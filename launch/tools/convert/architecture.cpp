#include "launch/tools/convert/architecture.h"

#include "framework/base/error.h"
#include "framework/recipe/nearest.h"
#include "framework/store/json_text.h"
#include "launch/tools/convert/rotary_config.h"
#include "layers/moe/recipe.h"

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
  const std::string near = nearest(model_type, names);
  fail(Fault::request, "The architecture '", model_type, "' came; the known ones are ", join_words(names),
       near.empty() ? "." : "; did you mean '" + near + "'?");
}

namespace {

/// What no architecture has.
std::vector<Demand> known_routers(const ModelRecipe& m) {
  if (count_moe_layers(m) == 0) return {};
  const RouterRecipe& router = m.moe.router;
  return {{std::holds_alternative<LinearScoreRecipe>(router.score), "its routers score by cosine"},
          {router.vocabulary.visible == 0, "its tokens have experts by their ids"}};
}

}  // namespace

std::string why_not(const Architecture& architecture, const ModelRecipe& model) {
  std::string reasons;
  for (const Demand& demand : joined({architecture.demands(model), known_routers(model)}))
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

namespace {

/// Windows come as a list of layers' kinds, or as a width, which some architectures switch on by another key.
void expect_whole_attention(const ConfigReader& config) {
  const std::string why = "Conclave's attention sees the whole document";
  if (config.has("layer_types") && config.json()["layer_types"].is_array())
    for (const nlohmann::json& kind : config.json()["layer_types"])
      if (kind != "full_attention")
        config.refuse("layer_types has ", text_of(kind), ", expected full_attention alone: ", why, ".");
  const std::string type = config.text_or("model_type", "");
  if (type == "qwen3" || type == "qwen3_moe") return config.expect("use_sliding_window", false, why);
  if (type == "mistral" && !config.json().contains("sliding_window"))
    config.refuse(
        "sliding_window is not there, which means 4096 to transformers, expected sliding_window: null: ", why,
        ".");
  config.expect("sliding_window", nullptr, why);
}

}  // namespace

void read_common_config(const ConfigReader& config, ModelRecipe& m) {
  m.vocab_size = config.whole("vocab_size");
  m.hidden_size = config.whole("hidden_size");
  m.num_hidden_layers = config.whole("num_hidden_layers");
  m.num_attention_heads = config.whole("num_attention_heads");
  m.num_key_value_heads =
      config.has("num_key_value_heads") ? config.whole("num_key_value_heads") : m.num_attention_heads;
  m.head_dim = config.has("head_dim") ? config.whole("head_dim") : m.hidden_size / m.num_attention_heads;
  m.rms_norm_eps = config.real("rms_norm_eps");
  m.rope_theta = read_rotary_config(config).theta.value_or(10000.0);
  config.expect("hidden_act", "silu", "Conclave's MLPs are SwiGLU");
  config.expect("attention_bias", false, "Conclave's projections have no biases");
  config.expect("mlp_bias", false, "Conclave's projections have no biases");
  expect_whole_attention(config);
  config.expect("quantization_config", nullptr, "Conclave reads fp32, bf16 and fp16 weights");
  config.one_of({"dtype", "torch_dtype"});  // the tensors say it themselves
  m.initializer_range = config.real_or("initializer_range", m.initializer_range);
  m.partial_rotary_factor = 1;
  m.qk_norm = false;
  m.qk_norm_over = QkNormOver::head;
}

/// Coefficient of our one term for each of theirs.
double scale_of_balance(const ModelRecipe& m) {
  const double layers =
      m.moe.layer_reduction == LayerReduction::sum ? static_cast<double>(count_moe_layers(m)) : 1.0;
  return static_cast<double>(m.moe.num_experts_per_tok) / layers;
}

double router_aux_loss_coefficient(const ModelRecipe& m) {
  double weight = 0;
  for (const BalanceRecipe& term : m.moe.balance)
    if (term.expert_groups == 0) weight += term.coefficient;
  return weight / scale_of_balance(m);
}

std::vector<BalanceRecipe> balance_of(double router_aux_loss_coef, const ModelRecipe& m) {
  if (router_aux_loss_coef == 0) return {};
  return {{.coefficient = router_aux_loss_coef * scale_of_balance(m)}};
}

std::int64_t read_number_of_experts(const ConfigReader& config) {
  return config.whole(config.one_of({"num_experts", "num_local_experts", "n_routed_experts"}));
}

std::string usual_tensor_name(const std::string& parameter, std::int64_t expert) {
  if (expert < 0) return parameter;
  const std::string stack = ".experts.";
  const std::size_t at = parameter.find(stack) + stack.size();
  return join_text(parameter.substr(0, at), expert, ".", parameter.substr(at));
}

std::vector<Demand> plain_router_demands(const ModelRecipe& m) {
  const RouterRecipe& router = m.moe.router;
  return {{router.kind == RouterKind::softmax, join_text("its routers use ", router.kind, " scores")},
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
  return {
      m.qk_norm && m.qk_norm_over == QkNormOver::head,
      m.qk_norm ? "it normalises queries and keys over all heads" : "it does not normalise queries and keys"};
}

}  // namespace conclave
