#include "layers/transformer.h"

#include <cmath>

namespace conclave {

TransformerBlock::TransformerBlock(ParameterSet& parameters, const std::string& name,
                                   const ModelRecipe& model, const InitialRange& range, bool dense)
    : attention_norm_(parameters, name + ".input_layernorm", model.hidden_size, model.rms_norm_eps),
      attention_(parameters, name + ".self_attn", model, range),
      mlp_norm_(parameters, name + ".post_attention_layernorm", model.hidden_size, model.rms_norm_eps) {
  if (dense)
    dense_.emplace(parameters, name + ".mlp", model.hidden_size, model.intermediate_size, range);
  else
    moe_.emplace(parameters, name + ".mlp", model, range);
}

Moe::Result TransformerBlock::forward(Tape& tape, const Variable& x, const ModelInput& input) const {
  const Variable attended = add(tape, x, attention_.forward(tape, attention_norm_.forward(tape, x), input));
  const Variable normed = mlp_norm_.forward(tape, attended);
  if (dense_) return {add(tape, attended, dense_->forward(tape, normed)), {}};
  Moe::Result mixed = moe_->forward(tape, normed, input);
  return {add(tape, attended, mixed.y), mixed.statistics};
}

Transformer::Transformer(ParameterSet& parameters, const ModelRecipe& model, Recompute recompute)
    : recompute_(recompute),
      moe_layers_(model.num_hidden_layers - model.moe.first_k_dense_replace),
      embedding_(parameters.create("model.embed_tokens.weight", {model.vocab_size, model.hidden_size},
                                   {Initializer::Kind::normal, model.initializer_range}, Decay::yes)) {
  InitialRange range{model.initializer_range, model.initializer_range};
  // GPT-2's rule: the sum of 2 * layers residual outputs keeps the variance of one.
  if (model.scale_residual_init)
    range.residual /= std::sqrt(2.0 * static_cast<double>(model.num_hidden_layers));
  for (std::int64_t layer = 0; layer < model.num_hidden_layers; ++layer)
    blocks_.push_back(std::make_unique<TransformerBlock>(parameters, join_text("model.layers.", layer), model,
                                                         range, layer < model.moe.first_k_dense_replace));
  final_norm_ = std::make_unique<RmsNorm>(parameters, "model.norm", model.hidden_size, model.rms_norm_eps);
  head_ = model.tie_word_embeddings
              ? &embedding_
              : &parameters.create("lm_head.weight", {model.vocab_size, model.hidden_size},
                                   {Initializer::Kind::normal, model.initializer_range}, Decay::yes);
}

Moe::Result Transformer::forward_block(Tape& tape, const TransformerBlock& block, const Variable& x,
                                       const ModelInput& input) const {
  if (recompute_ == Recompute::none) return block.forward(tape, x, input);
  // What leaves the segment: the hidden state and the differentiable statistics. Counts are committed by the
  // first run only, or a replay would count every token twice.
  Tensor counts;
  const std::vector<Variable> outputs = recompute(
      tape, {x},
      [&block, input, committed = &counts](Tape& inner, const std::vector<Variable>& inputs, SegmentRun run) {
        const Moe::Result result = block.forward(inner, inputs[0], input);
        if (!result.statistics.counts.defined()) return std::vector<Variable>{result.y};
        if (run == SegmentRun::first) *committed = result.statistics.counts;
        return std::vector<Variable>{result.y, result.statistics.probability_sums, result.statistics.z_sum};
      });
  if (outputs.size() == 1) return {outputs[0], {}};
  return {outputs[0], {counts, outputs[1], outputs[2]}};
}

Transformer::Result Transformer::forward(Tape& tape, const ModelInput& input) const {
  Result result;
  result.hidden = embedding(tape, input.tokens, embedding_.use(tape));
  for (const auto& block : blocks_) {
    const Moe::Result output = forward_block(tape, *block, result.hidden, input);
    result.hidden = output.y;
    if (output.statistics.counts.defined()) result.statistics.push_back(output.statistics);
  }
  result.hidden = final_norm_->forward(tape, result.hidden);
  return result;
}

CrossEntropy Transformer::loss(Tape& tape, const Variable& hidden, const ModelInput& input,
                               const CrossEntropyOptions& options) const {
  return linear_cross_entropy(tape, hidden, head_->use(tape), input.targets, options);
}

Tensor Transformer::logits(const Tensor& hidden) const {
  const Tensor result = Tensor::empty({hidden.dim(0), head_->shape[0]}, hidden.dtype(), hidden.device());
  kernels_of(hidden).gemm(hidden, Transpose::no, head_->value, Transpose::yes, result, Write::overwrite);
  return result;
}

}  // namespace conclave
