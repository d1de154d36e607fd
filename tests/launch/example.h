// A valid recipe that tests change in one place at a time.
#pragma once

#include <string>

#include "framework/base/error.h"
#include "launch/train/recipe_text.h"

namespace conclave {

inline const std::string example_text = R"(name: quickstart
model:
  vocab_size: 512
  hidden_size: 128
  num_hidden_layers: 4
  num_attention_heads: 4
  num_key_value_heads: 2
  head_dim: 32
  rms_norm_eps: 1.0e-6
  moe:
    num_experts: 16
    num_experts_per_tok: 2
    moe_intermediate_size: 128
    router: {kind: softmax, norm_topk_prob: true, z_loss_coefficient: 0.001}
    balance:
      - {scope: global_batch, estimator: warm, coefficient: 0.01}
data:
  sequence_length: 256
  train:      [{path: data/english, domain: english, weight: 1.0}, {path: data/code, domain: code}]
  validation: [{path: data/english-validation, domain: english}]
  domain_block: 4
training: {global_batch_size: 32, micro_batch_size: 4, steps: 300}
optimizer: {lr: 3.0e-3, betas: [0.9, 0.95], schedule: {kind: cosine, warmup_steps: 20}}
output: runs/quickstart
)";

inline Recipe example_recipe() {
  return parse_recipe(example_text, "example.yaml");
}

/// The complaint of the action, or "" where there is none. Only Fault::request counts as a complaint.
template <class Action>
std::string request_error(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.fault() == Fault::request ? error.what() : std::string("wrong fault: ") + error.what();
  }
  return "";
}

}  // namespace conclave
