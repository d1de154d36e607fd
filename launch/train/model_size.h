// Parameters and arithmetic of a model, read off the model. Its layers are made without their memory, and
// their parameters are counted by the names that they have.
#pragma once

#include <cstdint>
#include <string_view>

#include "launch/train/recipe.h"

namespace conclave {

enum class ModelPart {
  embedding,
  attention,  // q, k, v and output projections
  router,     // and whatever else a block has of its own
  experts,    // routed: gate, up and down projections
  shared_experts,
  dense_mlp,  // of the leading dense blocks
  norms,
  lm_head  // none where it is the embedding
};
/// Returns the part that a parameter belongs to, by its name (layers/transformer.h).
ModelPart part_of_parameter(std::string_view name);

/// A ParameterCount has the numbers of parameters by part. The products are x W with W [out, in]; there are
/// no biases.
struct ParameterCount {
  std::int64_t embedding = 0, attention = 0, router = 0, experts = 0, shared_experts = 0, dense_mlp = 0,
               norms = 0, lm_head = 0;

  std::int64_t& operator[](ModelPart part);
  std::int64_t total() const {
    return embedding + attention + router + experts + shared_experts + dense_mlp + norms + lm_head;
  }
};

/// Counts every parameter.
ParameterCount count_parameters(const ModelRecipe& model);

/// Counts the parameters that one token meets: among the routed experts, those that it is sent to.
ParameterCount count_active_parameters(const ModelRecipe& model);

/// Returns the floating-point operations that training needs per token, forward and backward. A recomputed
/// forward pass, norms, softmaxes and the optimizer are not counted, so that the rate measures useful
/// products only:
///   6 * (active parameters of matrix products: the embedding look-up is none, the LM head is one even when
///   tied)
///   + 3 * num_hidden_layers * (2 products * 2 operations * sequence_length / 2 * heads * head_dim)
/// Here sequence_length / 2 counts the causal half of the attention matrix once (documents count as
/// unmasked).
double training_flops_per_token(const ModelRecipe& model, std::int64_t sequence_length);

}  // namespace conclave
