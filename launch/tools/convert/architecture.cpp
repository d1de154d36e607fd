#include "launch/tools/convert/architecture.h"

#include <algorithm>

#include "framework/base/error.h"
#include "framework/recipe/nearest.h"
#include "framework/store/json_text.h"
#include "launch/tools/convert/rotary_config.h"
#include "layers/moe/recipe.h"

namespace conclave {

const std::vector<const Architecture*>& architectures() {
  static const std::vector<const Architecture*> all = {
      &qwen3_moe, &olmoe,      &mixtral,  &granitemoe,  &granitemoeshared,
      &deepseek,  &minimax_m2, &glm4_moe, &dots1,       &solar_open,
      &qwen3,     &llama,      &qwen2,    &conclave_own};
  return all;
}

namespace {

std::vector<std::string> list_of_names() {
  std::vector<std::string> names;
  for (const Architecture* architecture : architectures()) names.emplace_back(architecture->model_type);
  return names;
}

}  // namespace

std::string architecture_names() {
  return join_words(list_of_names());
}

const Architecture& architecture_named(const std::string& model_type) {
  for (const Architecture* architecture : architectures())
    if (architecture->model_type == model_type) return *architecture;
  const std::string near = nearest(model_type, list_of_names());
  fail(Fault::request, "The architecture '", model_type, "' came; the known ones are ", architecture_names(),
       near.empty() ? "." : "; did you mean '" + near + "'?");
}

Abilities abilities_of(const Architecture& architecture) {
  if (&architecture == &qwen3_moe)
    return {.all_biases = true, .scaled_positions = true, .dense_blocks_anywhere = true};
  if (&architecture == &olmoe || &architecture == &qwen3 || &architecture == &llama)
    return {.all_biases = true, .scaled_positions = true};
  if (&architecture == &glm4_moe || &architecture == &qwen2)
    return {.qkv_biases = true, .scaled_positions = true};
  if (&architecture == &mixtral) return {.scaled_positions = true};
  return {};
}

namespace {

/// What few architectures can say.
std::vector<Demand> rare_demands(const Architecture& architecture, const ModelRecipe& m) {
  const Abilities abilities = abilities_of(architecture);
  const bool can_bias = m.attention_bias == AttentionBias::none ||
                        (m.attention_bias == AttentionBias::qkv && abilities.qkv_biases) ||
                        (m.attention_bias == AttentionBias::all && abilities.all_biases);
  return {{can_bias, m.attention_bias == AttentionBias::qkv
                         ? "its queries, keys and values have biases, and the output of attention has none"
                         : "all projections of its attention have biases"},
          {m.rope_scaling.type == RopeFrequencies::Scaling::none || abilities.scaled_positions,
           join_text("its positions are scaled (", m.rope_scaling.type, ")")},
          {m.no_rope_layers.empty(), "its positions turn nothing in some blocks"},
          {!m.qk_norm_after_rope, "it normalises queries and keys after they are turned"},
          {dense_blocks_come_first(m) || abilities.dense_blocks_anywhere,
           "it has dense blocks behind blocks with experts"}};
}

/// rope_scaling as transformers 4 and 5 read it.
nlohmann::ordered_json scaling_config(const RopeScalingRecipe& scaling) {
  if (scaling.type == RopeFrequencies::Scaling::none) return nullptr;
  nlohmann::ordered_json config = {{"rope_type", word_of(scaling.type)}, {"factor", scaling.factor}};
  if (scaling.type != RopeFrequencies::Scaling::llama3) return config;
  config["low_freq_factor"] = scaling.low_freq_factor;
  config["high_freq_factor"] = scaling.high_freq_factor;
  config["original_max_position_embeddings"] = scaling.original_max_position_embeddings;
  return config;
}

}  // namespace

std::string why_not(const Architecture& architecture, const ModelRecipe& model) {
  std::string reasons;
  for (const Demand& demand :
       joined({architecture.demands(model), rare_demands(architecture, model), known_router_demands(model)}))
    if (!demand.holds) reasons += (reasons.empty() ? "" : "; ") + demand.otherwise;
  return reasons;
}

namespace {

/// Returns the first architecture that can express a model, or nullptr. `reasons` is then told why none can.
const Architecture* first_architecture(const ModelRecipe& model,
                                       const std::vector<const Architecture*>& among, std::string& reasons) {
  for (const Architecture* architecture : among) {
    const std::string why = why_not(*architecture, model);
    if (why.empty()) return architecture;
    reasons += join_text("\n  ", architecture->class_name, ": ", why);
  }
  return nullptr;
}

}  // namespace

const Architecture& choose_architecture(const std::string& model_type, const ModelRecipe& model) {
  if (!model_type.empty()) {
    const Architecture& asked = architecture_named(model_type);
    const std::string reasons = why_not(asked, model);
    check(reasons.empty(), Fault::request, asked.class_name, " cannot express this model: ", reasons, ".");
    return asked;
  }
  std::string reasons;
  const Architecture* first = first_architecture(model, architectures(), reasons);
  check(first != nullptr, Fault::request,
        "No architecture that Conclave exports to can express this model:", reasons);
  return *first;
}

std::string export_sentence(const ModelRecipe& model, const std::vector<const Architecture*>& among) {
  std::string reasons;
  const Architecture* first = first_architecture(model, among, reasons);
  if (first == nullptr) return "The model has no export: " + why_not(*among.back(), model) + ".";
  return join_text("The model exports as ", first->model_type,
                   first->brings_code ? ", which transformers loads with trust_remote_code=True." : ".");
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
  config["rope_scaling"] = scaling_config(m.rope_scaling);
  config["attention_bias"] = m.attention_bias != AttentionBias::none;
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
  const RotaryConfig rotary = read_rotary_config(config);
  m.rope_theta = rotary.theta.value_or(10000.0);
  m.rope_scaling = rotary.scaling;
  m.no_rope_layers.clear();
  config.expect("hidden_act", "silu", "Conclave's MLPs are SwiGLU");
  m.attention_bias = config.flag_or("attention_bias", false) ? AttentionBias::all : AttentionBias::none;
  config.expect("mlp_bias", false, "Conclave's MLPs have no biases");
  config.expect("quantization_config", nullptr, "Conclave reads fp32, bf16 and fp16 weights");
  config.one_of({"dtype", "torch_dtype"});  // the tensors say it themselves
  m.initializer_range = config.real_or("initializer_range", m.initializer_range);
  m.partial_rotary_factor = 1;
  m.qk_norm = m.qk_norm_after_rope = false;
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

bool groups_never_limit(const ModelRecipe& m) {
  const RouterRecipe& router = m.moe.router;
  // By softmax a group is as good as its best expert, so the best k experts are in the best k groups.
  return router.topk_group == router.n_group ||
         (router.kind == RouterKind::softmax && m.moe.num_experts_per_tok <= router.topk_group);
}

std::vector<Demand> plain_router_demands(const ModelRecipe& m) {
  const RouterRecipe& router = m.moe.router;
  return {{router.kind == RouterKind::softmax, join_text("its routers use ", router.kind, " scores")},
          {groups_never_limit(m), join_text("its experts are in ", router.n_group, " groups")},
          {router.routed_scaling_factor == 1,
           join_text("it scales the routed experts by ", router.routed_scaling_factor)},
          {router.bias.rate == 0, "its routers choose with a selection bias"}};
}

void write_grouped_routing(const ModelRecipe& m, nlohmann::ordered_json& config) {
  config["moe_intermediate_size"] = m.moe.moe_intermediate_size;
  config["n_routed_experts"] = m.moe.num_experts;
  config["n_shared_experts"] = std::max<std::int64_t>(m.moe.num_shared_experts, 1);
  config["num_experts_per_tok"] = m.moe.num_experts_per_tok;
  config["norm_topk_prob"] = m.moe.router.norm_topk_prob;
  config["routed_scaling_factor"] = m.moe.router.routed_scaling_factor;
  config["n_group"] = m.moe.router.n_group;
  config["topk_group"] = m.moe.router.topk_group;
}

void read_grouped_routing(const ConfigReader& config, ModelRecipe& m) {
  m.moe.moe_intermediate_size = config.whole("moe_intermediate_size");
  m.moe.num_experts = read_number_of_experts(config);
  m.moe.num_experts_per_tok = config.whole("num_experts_per_tok");
  RouterRecipe& router = m.moe.router;
  router.kind = RouterKind::sigmoid;
  router.routed_scaling_factor = config.real_or("routed_scaling_factor", 1.0);
  router.n_group = config.has("n_group") ? config.whole("n_group") : 1;
  router.topk_group = config.has("topk_group") ? config.whole("topk_group") : 1;
}

Demand has_groups_of_several(const ModelRecipe& m) {
  return {m.moe.num_experts / m.moe.router.n_group > 1, "its groups have one expert each"};
}

Demand has_sigmoid_routers(const ModelRecipe& m) {
  return {m.moe.router.kind == RouterKind::sigmoid,
          join_text("its routers use ", m.moe.router.kind, " scores")};
}

Demand has_no_shared_experts(const ModelRecipe& m) {
  return {m.moe.num_shared_experts == 0, "it has shared experts"};
}

Demand has_weights_that_sum_to_one(const ModelRecipe& m) {
  return {m.moe.router.norm_topk_prob, "the weights of its chosen experts do not sum to 1"};
}

std::vector<Demand> joined(std::initializer_list<std::vector<Demand>> lists) {
  std::vector<Demand> all;
  for (const std::vector<Demand>& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

Demand has_experts(const ModelRecipe& m) {
  return {count_moe_layers(m) > 0, "none of its blocks has experts"};
}

std::vector<Demand> known_router_demands(const ModelRecipe& m) {
  if (count_moe_layers(m) == 0) return {};
  const RouterRecipe& router = m.moe.router;
  return {{std::holds_alternative<LinearScoreRecipe>(router.score), "its routers score by cosine"},
          {router.vocabulary.visible == 0, "its tokens have experts by their ids"}};
}

std::int64_t leading_dense_blocks(const ModelRecipe& m) {
  return m.num_hidden_layers - count_moe_layers(m);
}

Demand has_no_dense_blocks(const ModelRecipe& m) {
  const std::int64_t dense = leading_dense_blocks(m);
  return {dense == 0, join_text(dense_blocks_come_first(m) ? "its first " : "", dense,
                                dense == 1 ? " block is dense" : " blocks are dense")};
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

Demand has_qk_norm_over_all_heads(const ModelRecipe& m) {
  return {m.qk_norm && m.qk_norm_over == QkNormOver::all_heads,
          m.qk_norm ? "it normalises each query and key head by itself"
                    : "it does not normalise queries and keys"};
}

}  // namespace conclave
