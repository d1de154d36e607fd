// Transformer: embedding, blocks of a sequence mixer and a feed-forward part with pre-norm residuals, final
// norm. The mathematics and the parameter names are those of Hugging Face's Qwen3MoeForCausalLM
// (model.layers.0.self_attn.q_proj.weight ...). A maker, handed in, makes the feed-forward parts.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "framework/autograd/ops/vocabulary.h"
#include "layers/feed_forward.h"
#include "layers/linear.h"
#include "layers/recipe.h"
#include "layers/sequence_mixer.h"

namespace conclave {

/// One block. Parameters under NAME: input_layernorm, self_attn, post_attention_layernorm, mlp.
class TransformerBlock {
 public:
  TransformerBlock(ParameterSet& parameters, const std::string& name, std::int64_t block,
                   const TransformerRecipe& model, const InitialRange& range, const Parallelism& parallelism,
                   const FeedForwardMaker& feed_forward);

  /// x [rows of the residual stream, hidden]
  FeedForward::Result forward(Tape& tape, const Variable& x, const ModelInput& input) const;
  /// The same for tokens that come next in several sequences, as SequenceMixer::extend.
  Variable extend(Tape& tape, const Variable& x, const ModelInput& row,
                  std::span<const Continuation> continuations) const;
  std::int64_t routers() const { return feed_forward_->routers(); }
  const SequenceMixer& mixer() const { return *mixer_; }

 private:
  /// mix(normalised x): what the mixer adds to the stream.
  template <class Mix>
  FeedForward::Result through(Tape& tape, const Variable& x, const ModelInput& input, Mix&& mix) const;

  RmsNorm mixer_norm_;
  std::unique_ptr<SequenceMixer> mixer_;
  RmsNorm mlp_norm_;
  std::unique_ptr<FeedForward> feed_forward_;
};

/// What a model keeps of one sequence, so that the tokens that come next can be computed alone.
struct SequenceState {
  std::vector<std::unique_ptr<MixerState>> blocks;
  std::int64_t room = 0, seen = 0;  // tokens
};

class Transformer {
 public:
  /// The parameters must be a set for this mesh's layout and rank.
  Transformer(ParameterSet& parameters, const TransformerRecipe& model, const FeedForwardMaker& feed_forward,
              Recompute recompute, const Parallelism& parallelism = {});

  struct Result {
    Variable hidden;                           // [rows of the residual stream, hidden], after the final norm
    std::vector<RouterStatistics> statistics;  // of all routers, in order; this rank's tokens
  };
  /// Sees what a layer hands on: "model.embed_tokens", "model.layers.0" ..., "model.norm".
  using LayerObserver = std::function<void(const std::string& layer, const Tensor& output)>;
  Result forward(Tape& tape, const ModelInput& input, const LayerObserver& observe = {}) const;

  /// LM head and cross-entropy of all targets of the micro-batch; the same on all tensor ranks.
  CrossEntropy loss(Tape& tape, const Variable& hidden, const ModelInput& input,
                    const CrossEntropyOptions& options) const;
  /// Logits of some rows, for sampling on one tensor rank: hidden [rows, hidden] -> [rows, vocabulary]
  Tensor logits(const Tensor& hidden) const;

  // Going on with sequences, outside of training and on one tensor rank. Each token must depend on those
  // before it alone (looks_at_other_tokens in layers/moe/methods.h).
  /// A state with room for so many tokens, none of them seen.
  SequenceState make_state(std::int64_t tokens) const;
  /// The bytes that such a state takes.
  std::size_t state_bytes(std::int64_t tokens) const;
  /// Tokens that come next in a sequence, at least one.
  struct Next {
    SequenceState* state;
    std::span<const std::int32_t> tokens;
  };
  /// Goes on with several sequences together; the states see the tokens. Gives the hidden states after the
  /// last token of each, [sequences, hidden], after the final norm.
  Tensor extend(std::span<const Next> sequences) const;

  /// Where the parameters are, and inputs must be.
  Device& device() const { return embedding_.value.device(); }
  /// How many statistics a result has.
  std::int64_t routers() const;

 private:
  Variable embed(Tape& tape, const ModelInput& input) const;
  FeedForward::Result forward_block(Tape& tape, const TransformerBlock& block, const Variable& x,
                                    const ModelInput& input) const;

  Recompute recompute_;
  Parallelism parallelism_;
  const Parameter& embedding_;
  std::vector<std::unique_ptr<TransformerBlock>> blocks_;
  std::unique_ptr<RmsNorm> final_norm_;
  const Parameter*
      head_;  // [vocabulary, hidden], shared out over tensor ranks; the embedding itself when tied
};

}  // namespace conclave
