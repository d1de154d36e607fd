// Architecture: how one architecture of Hugging Face's transformers says what a ModelRecipe says. It knows
// which models the architecture can express, the keys of its config.json, and the names of its tensors. Each
// architecture is one small file; a new one is such a file and a line in architecture.cpp. Nothing here reads
// or writes weights.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/tools/convert/config_reader.h"
#include "launch/train/recipe.h"

namespace conclave {

/// A Demand is a thing that an architecture takes for granted.
struct Demand {
  bool holds;
  std::string otherwise;  // what the recipe has instead, as a clause: "its routers use sigmoid scores"
};

struct Architecture {
  const char* model_type;  // of config.json, and what `conclave export --arch` takes
  const char* class_name;  // of transformers
  bool has_experts;
  bool has_selection_bias;  // its routers have one, be it zero
  /// Lists all that the architecture takes for granted of a model.
  std::vector<Demand> (*demands)(const ModelRecipe& model);
  /// Adds the keys that are its own to those that all have.
  void (*write_config)(const ModelRecipe& model, nlohmann::ordered_json& config);
  /// Reads the keys that are its own into the model, after read_common_config.
  void (*read_config)(const ConfigReader& config, ModelRecipe& model);
  /// Returns its name of a parameter of ours (layers/transformer.h), or of one expert's row of a stack.
  std::string (*tensor_name)(const std::string& parameter, std::int64_t expert);
  /// Its blocks with experts have shared experts, be they zeros.
  bool needs_shared_experts = false;
  /// All experts of a block are one tensor, gate and up matrices under one name (hub_tensors.h).
  bool packs_experts = false;
  /// The class is not one of transformers, and its code is written beside the weights.
  bool brings_code = false;
};

extern const Architecture qwen3_moe, olmoe, mixtral, granitemoe, granitemoeshared, deepseek;
extern const Architecture minimax_m2, dots1, solar_open, glm4_moe;
extern const Architecture qwen3, llama, qwen2;  // dense
extern const Architecture conclave_own;         // every model

/// Lists them in the order in which an export without --arch tries them.
const std::vector<const Architecture*>& architectures();

/// Returns the model_type of each: "qwen3_moe, olmoe and llama".
std::string architecture_names();

/// Finds an architecture by its model_type. Throws Fault::request with the nearest name where there is none.
const Architecture& architecture_named(const std::string& model_type);

/// Says why an architecture cannot express a model, clauses joined; empty when it can.
std::string why_not(const Architecture& architecture, const ModelRecipe& model);

/// Returns the architecture that is asked for, or the first that can express the model. Throws Fault::request
/// with the reason, or all architectures' reasons, where none can.
const Architecture& choose_architecture(const std::string& model_type, const ModelRecipe& model);

/// What an architecture can say beyond the keys of its own file. The others demand that a model has none of
/// it.
struct Abilities {
  bool qkv_biases = false;        // attention_bias means biases of queries, keys and values
  bool all_biases = false;        // attention_bias means biases of the output too
  bool scaled_positions = false;  // rope_scaling
  bool dense_blocks_anywhere = false;
};
Abilities abilities_of(const Architecture& architecture);
/// Returns a sentence about what a model exports as without --arch. Where it has no export, the reason is
/// that of the last architecture, which can express the most.
std::string export_sentence(const ModelRecipe& model,
                            const std::vector<const Architecture*>& among = architectures());

/// These two write and read what all architectures have in common: sizes, heads, rotary positions, tying.
/// Reading throws Fault::data where config.json asks for what Conclave's model does not have: biases of MLPs,
/// other activations, quantised weights. Windows are for windows.h.
void write_common_config(const ModelRecipe& model, nlohmann::ordered_json& config);
void read_common_config(const ConfigReader& config, ModelRecipe& model);

// The files of architectures use the following.

/// Returns the coefficient of the load-balancing loss as transformers computes it, which is
/// num_experts_per_tok under even routing and a mean over layers. With it, that loss weighs as much as all
/// terms of the recipe together that even the load of single experts. The coefficient is for training that
/// goes on there. It is near at best: there is no scope but the micro-batch, and no loss over groups of
/// experts.
double router_aux_loss_coefficient(const ModelRecipe& model);
/// Returns the terms of a recipe that weigh as much as router_aux_loss_coef does there.
std::vector<BalanceRecipe> balance_of(double router_aux_loss_coef, const ModelRecipe& model);
/// Reads how many routed experts a layer has, a key with three names.
std::int64_t read_number_of_experts(const ConfigReader& config);
/// Returns the name that most have: ours, with an expert's row of a stack as experts.E.
std::string usual_tensor_name(const std::string& parameter, std::int64_t expert);
/// Demands softmax routers without groups that limit the choice, without factor and without bias.
std::vector<Demand> plain_router_demands(const ModelRecipe& model);
/// True where a token's best experts are all of its chosen groups, whatever their scores.
bool groups_never_limit(const ModelRecipe& model);
/// Writes and reads the keys of DeepSeek-V3's routing: sigmoid scores, groups and factor. It writes shared
/// experts too, of which there is at least one.
void write_grouped_routing(const ModelRecipe& model, nlohmann::ordered_json& config);
void read_grouped_routing(const ConfigReader& config, ModelRecipe& model);
/// Demands groups of two experts at least, whose two best scores the classes with that routing add up.
Demand has_groups_of_several(const ModelRecipe& model);
Demand has_sigmoid_routers(const ModelRecipe& model);
Demand has_no_shared_experts(const ModelRecipe& model);
Demand has_weights_that_sum_to_one(const ModelRecipe& model);
std::vector<Demand> joined(std::initializer_list<std::vector<Demand>> lists);
Demand has_experts(const ModelRecipe& model);
/// Demands routers without what no other framework has: cosine scores, masks by token id.
std::vector<Demand> known_router_demands(const ModelRecipe& model);
/// Counts the dense blocks of a model whose dense blocks come first, by whichever key the recipe names them.
std::int64_t leading_dense_blocks(const ModelRecipe& model);
Demand has_no_dense_blocks(const ModelRecipe& model);
Demand has_whole_rotation(const ModelRecipe& model);
Demand has_no_qk_norm(const ModelRecipe& model);
Demand has_qk_norm_by_head(const ModelRecipe& model);
Demand has_qk_norm_over_all_heads(const ModelRecipe& model);

}  // namespace conclave
