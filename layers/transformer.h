// Transformer: embedding, blocks of a sequence mixer and a (mixture-of-experts or dense) MLP with pre-norm
// residuals, final norm. The mathematics and the parameter names are those of Hugging Face's
// Qwen3MoeForCausalLM (model.layers.0. self_attn.q_proj.weight ...), experts stacked as layers/experts.h
// says.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "framework/autograd/ops/vocabulary.h"
#include "layers/moe.h"
#include "layers/moe/recipe.h"
#include "layers/sequence_mixer.h"

namespace conclave {

/// One block. Parameters under NAME: input_layernorm, self_attn, post_attention_layernorm, mlp.
class TransformerBlock {
 public:
  /// selection_bias: of this block's router (layers/selection_bias.h); undefined: none, or a dense block.
  TransformerBlock(ParameterSet& parameters, const std::string& name, const ModelRecipe& model,
                   const InitialRange& range, const Parallelism& parallelism, bool dense,
                   const Tensor& selection_bias, const RouterMaker& router);

  /// x [rows of the residual stream, hidden]. Statistics are filled by a mixture-of-experts block only.
  Moe::Result forward(Tape& tape, const Variable& x, const ModelInput& input) const;

 private:
  Parallelism parallelism_;
  RmsNorm mixer_norm_;
  std::unique_ptr<SequenceMixer> mixer_;
  RmsNorm mlp_norm_;
  std::optional<Moe> moe_;
  std::optional<Mlp> dense_;
};

class Transformer {
 public:
  /// The parameters must be a set for this mesh's layout and rank, and get their memory on this device.
  Transformer(ParameterSet& parameters, const ModelRecipe& model, Recompute recompute,
              const Parallelism& parallelism = {}, Device& device = cpu_device(),
              const RouterMaker& router = make_router);

  struct Result {
    Variable hidden;  // [rows of the residual stream, hidden], after the final norm
    std::vector<RouterStatistics>
        statistics;  // of the mixture-of-experts layers, in order; this rank's tokens
  };
  /// Sees what a layer hands on: "model.embed_tokens", "model.layers.0" ..., "model.norm".
  using LayerObserver = std::function<void(const std::string& layer, const Tensor& output)>;
  Result forward(Tape& tape, const ModelInput& input, const LayerObserver& observe = {}) const;

  /// LM head and cross-entropy of all targets of the micro-batch; the same on all tensor ranks.
  CrossEntropy loss(Tape& tape, const Variable& hidden, const ModelInput& input,
                    const CrossEntropyOptions& options) const;
  /// Logits of some rows, for sampling on one tensor rank: hidden [rows, hidden] -> [rows, vocabulary]
  Tensor logits(const Tensor& hidden) const;

  /// Where the parameters are, and inputs must be.
  Device& device() const { return embedding_.value.device(); }
  std::int64_t moe_layers() const { return moe_layers_; }
  /// float64 [mixture-of-experts layers, experts], zero at first, what the routers add to their scores when
  /// they choose; undefined where the recipe wants none. Not a parameter: no gradient reaches it.
  const Tensor& selection_bias() const { return selection_bias_; }

 private:
  Variable embed(Tape& tape, const ModelInput& input) const;
  Moe::Result forward_block(Tape& tape, const TransformerBlock& block, const Variable& x,
                            const ModelInput& input) const;

  Recompute recompute_;
  Parallelism parallelism_;
  std::int64_t moe_layers_;
  Tensor selection_bias_;
  const Parameter& embedding_;
  std::vector<std::unique_ptr<TransformerBlock>> blocks_;
  std::unique_ptr<RmsNorm> final_norm_;
  const Parameter*
      head_;  // [vocabulary, hidden], shared out over tensor ranks; the embedding itself when tied
};

}  // namespace conclave
