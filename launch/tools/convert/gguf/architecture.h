// Architecture: how llama.cpp computes one of its architectures, as far as Conclave's models go. Each is one
// small file that says what llama.cpp holds constant there, and a line in architecture.cpp. Nothing here
// writes weights.
#pragma once

#include <string>
#include <vector>

#include "launch/tools/convert/architecture.h"
#include "launch/tools/convert/gguf/file.h"

namespace conclave::gguf {

struct Architecture {
  const char* name;  // general.architecture, and what `conclave export --format gguf --arch` takes
  /// Lists all that llama.cpp takes for granted here, beyond what it does for every architecture.
  std::vector<Demand> (*demands)(const ModelRecipe& model);
  /// Rotary positions turn neighbours in a head (2i, 2i + 1), where Conclave's turn (i, i + half).
  bool turns_neighbours = false;
  /// Routers have a selection bias, be it zero.
  bool has_selection_bias = false;
  /// Blocks with experts have shared ones; a model that has none gets one whose weights are zero.
  bool has_shared_experts = false;
  /// Queries, keys and values may have biases; with the second, the output of attention too.
  bool reads_qkv_biases = false, reads_all_biases = false;
  /// The name of the norm in front of a block's MLP.
  const char* mlp_norm = "ffn_norm";
  /// Adds keys that no other architecture has.
  void (*write_own_keys)(const ModelRecipe& model, KeyValues& keys) = nullptr;
};

extern const Architecture qwen3moe, olmoe, llama, qwen3, glm4moe, dots1, deepseek, granitemoe, minimax_m2;

/// Lists them in the order in which an export without --arch tries them.
const std::vector<const Architecture*>& architectures();

/// Says why an architecture cannot express a model, clauses joined; empty when it can.
std::string why_not(const Architecture& architecture, const ModelRecipe& model);

/// Returns the architecture that is asked for by name, or the first that can express the model. Throws
/// Fault::request with the reason, or all architectures' reasons, where none can.
const Architecture& architecture_for(const std::string& name, const ModelRecipe& model);

/// Adds the keys by which llama.cpp builds the model.
void write_model_keys(const Architecture& architecture, const ModelRecipe& model,
                      std::int64_t longest_sequence, KeyValues& keys);

// The files of architectures use the following, beside the demands of launch/tools/convert/architecture.h.

/// Demands softmax routers without selection bias and without a choice of groups.
std::vector<Demand> softmax_demands(const ModelRecipe& model);
Demand has_sigmoid(const ModelRecipe& model);
Demand has_unscaled_experts(const ModelRecipe& model);
Demand has_weights_as_they_are(const ModelRecipe& model);
Demand has_shared_experts(const ModelRecipe& model);
Demand has_no_grouped_heads(const ModelRecipe& model);
Demand has_heads_of_the_hidden_size(const ModelRecipe& model);
Demand has_own_output_matrix(const ModelRecipe& model);

}  // namespace conclave::gguf
