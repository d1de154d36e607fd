#include "layers/transformer.h"

#include <algorithm>
#include <cmath>

#include "framework/device/profile.h"

namespace conclave {

TransformerBlock::TransformerBlock(ParameterSet& parameters, const std::string& name, std::int64_t block,
                                   const TransformerRecipe& model, const InitialRange& range,
                                   const Parallelism& parallelism, const FeedForwardMaker& feed_forward)
    : mixer_norm_(parameters, name + ".input_layernorm", model.hidden_size, model.rms_norm_eps,
                  parallelism.residual()),
      mixer_(make_sequence_mixer(parameters, name, block, model, range, parallelism)),
      mlp_norm_(parameters, name + ".post_attention_layernorm", model.hidden_size, model.rms_norm_eps,
                parallelism.residual()),
      feed_forward_(feed_forward(parameters, {name + ".mlp", block, range, parallelism})) {}

template <class Mix>
FeedForward::Result TransformerBlock::through(Tape& tape, const Variable& x, const ModelInput& input,
                                              Mix&& mix) const {
  const Variable mixed = [&] {
    const ProfilePurpose purpose(mixer_->purpose());
    return add(tape, x, mix(mixer_norm_.forward(tape, x)));
  }();
  const ProfilePurpose purpose(feed_forward_->purpose());
  FeedForward::Result result = feed_forward_->forward(tape, mlp_norm_.forward(tape, mixed), input);
  result.y = add(tape, mixed, result.y);
  return result;
}

FeedForward::Result TransformerBlock::forward(Tape& tape, const Variable& x, const ModelInput& input) const {
  return through(tape, x, input,
                 [&](const Variable& normed) { return mixer_->forward(tape, normed, input); });
}

Variable TransformerBlock::extend(Tape& tape, const Variable& x, const ModelInput& row,
                                  std::span<const Continuation> continuations) const {
  return through(tape, x, row,
                 [&](const Variable& normed) { return mixer_->extend(tape, normed, row, continuations); })
      .y;
}

Transformer::Transformer(ParameterSet& parameters, const TransformerRecipe& model,
                         const FeedForwardMaker& feed_forward, Recompute recompute,
                         const Parallelism& parallelism)
    : recompute_(recompute),
      parallelism_(parallelism),
      embedding_(parameters.create("model.embed_tokens.weight", {model.vocab_size, model.hidden_size},
                                   {Initializer::Kind::normal, model.initializer_range}, Decay::yes,
                                   Parallelism::cut(0))) {
  InitialRange range{model.initializer_range, model.initializer_range};
  // GPT-2's rule: the sum of 2 * layers residual outputs keeps the variance of one.
  if (model.scale_residual_init)
    range.residual /= std::sqrt(2.0 * static_cast<double>(model.num_hidden_layers));
  for (std::int64_t layer = 0; layer < model.num_hidden_layers; ++layer)
    blocks_.push_back(std::make_unique<TransformerBlock>(parameters, join_text("model.layers.", layer), layer,
                                                         model, range, parallelism, feed_forward));
  final_norm_ = std::make_unique<RmsNorm>(parameters, "model.norm", model.hidden_size, model.rms_norm_eps,
                                          parallelism.residual());
  head_ = model.tie_word_embeddings
              ? &embedding_
              : &parameters.create("lm_head.weight", {model.vocab_size, model.hidden_size},
                                   {Initializer::Kind::normal, model.initializer_range}, Decay::yes,
                                   Parallelism::cut(0));
}

std::int64_t Transformer::routers() const {
  std::int64_t count = 0;
  for (const auto& block : blocks_) count += block->routers();
  return count;
}

FeedForward::Result Transformer::forward_block(Tape& tape, const TransformerBlock& block, const Variable& x,
                                               const ModelInput& input) const {
  if (recompute_ == Recompute::none) return block.forward(tape, x, input);
  // The hidden state and the differentiable statistics leave the segment. Counts are committed by the
  // first run only, or a replay would count every token twice.
  FeedForward::Result committed;
  const std::vector<Variable> outputs = recompute(
      tape, {x},
      [&block, input, &committed](Tape& inner, const std::vector<Variable>& inputs, SegmentRun run) {
        FeedForward::Result result = block.forward(inner, inputs[0], input);
        std::vector<Variable> leaving = {result.y};
        for (RouterStatistics& router : result.routers)
          for (Variable* variable : router.variables()) leaving.push_back(*variable);
        if (run == SegmentRun::first) committed = std::move(result);
        return leaving;
      });
  auto next = outputs.begin();
  committed.y = *next++;
  for (RouterStatistics& router : committed.routers)
    for (Variable* variable : router.variables()) *variable = *next++;
  return committed;
}

namespace {

/// Token ids of this rank's part of the vocabulary, counted from its first; the others become -1, which
/// embeds to zero.
Tensor own_tokens(const Tensor& tokens, std::int64_t first, std::int64_t vocabulary) {
  std::vector<std::int32_t> ids = tokens.to_host<std::int32_t>();
  for (std::int32_t& id : ids) {
    const std::int64_t own = id - first;
    id = id >= 0 && own >= 0 && own < vocabulary ? static_cast<std::int32_t>(own) : -1;
  }
  return Tensor::from(ids, tokens.shape(), tokens.device());
}

/// Kernels::cross_entropy_statistics of all tensor ranks: [ranks * rows, 3].
Tensor gather_statistics(const Tensor& own, Communicator& tensor) {
  const Tensor all = Tensor::empty({tensor.size() * own.dim(0), 3}, DType::float64, own.device());
  tensor.all_gather_rows(own, all, Purpose::activations);
  return all;
}

}  // namespace

Variable Transformer::embed(Tape& tape, const ModelInput& input) const {
  const ProfileLayer profiled("model.embed_tokens");
  if (parallelism_.tensor().size() == 1) return embedding(tape, input.tokens, embedding_.use(tape));
  const Tensor own = own_tokens(input.tokens, embedding_.origin[0], embedding_.shape[0]);
  return parallelism_.leave_tensor(tape, embedding(tape, own, embedding_.use(tape)));
}

Transformer::Result Transformer::forward(Tape& tape, const ModelInput& input,
                                         const LayerObserver& observe) const {
  Result result;
  result.hidden = embed(tape, input);
  if (observe) observe("model.embed_tokens", result.hidden.value);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const std::string name = join_text("model.layers.", layer);
    const ProfileLayer profiled(name.c_str());
    const FeedForward::Result output = forward_block(tape, *blocks_[layer], result.hidden, input);
    result.hidden = output.y;
    if (observe) observe(name, result.hidden.value);
    result.statistics.insert(result.statistics.end(), output.routers.begin(), output.routers.end());
  }
  const ProfileLayer profiled("model.norm");
  result.hidden = final_norm_->forward(tape, result.hidden);
  if (observe) observe("model.norm", result.hidden.value);
  return result;
}

CrossEntropy Transformer::loss(Tape& tape, const Variable& hidden, const ModelInput& input,
                               const CrossEntropyOptions& options) const {
  const ProfileLayer profiled("lm_head");
  CrossEntropyOptions sharded = options;
  Communicator& tensor = parallelism_.tensor();
  sharded.first_id = head_->origin[0];
  sharded.parts = tensor.size();
  if (tensor.size() > 1)
    sharded.gather = [&tensor](const Tensor& statistics) { return gather_statistics(statistics, tensor); };
  return linear_cross_entropy(tape, parallelism_.enter_tensor(tape, hidden), head_->use(tape), input.targets,
                              sharded);
}

Tensor Transformer::logits(const Tensor& hidden) const {
  const Tensor result =
      Tensor::empty({hidden.dim(0), head_->shape[0]}, sum_type(hidden.dtype()), hidden.device());
  kernels_of(hidden).gemm(hidden, Transpose::no, head_->value, Transpose::yes, result, Write::overwrite);
  return result;
}

SequenceState Transformer::make_state(std::int64_t tokens) const {
  SequenceState state{.blocks = {}, .room = tokens};
  for (const auto& block : blocks_)
    state.blocks.push_back(block->mixer().make_state(tokens, embedding_.value.dtype(), device()));
  return state;
}

std::size_t Transformer::state_bytes(std::int64_t tokens) const {
  std::size_t bytes = 0;
  for (const auto& block : blocks_) bytes += block->mixer().state_bytes(tokens, embedding_.value.dtype());
  return bytes;
}

Tensor Transformer::extend(std::span<const Next> sequences) const {
  check(parallelism_.tensor().size() == 1, "Transformer::extend: it is for one tensor rank");
  std::vector<NextTokens> tokens;
  std::vector<Continuation> continuations;
  std::int64_t rows = 0;
  for (const Next& next : sequences) {
    const auto count = static_cast<std::int64_t>(next.tokens.size());
    check(count > 0 && next.state->seen + count <= next.state->room, "Transformer::extend: ", count,
          " tokens came for a state that has seen ", next.state->seen, " and has room for ",
          next.state->room);
    tokens.push_back({next.tokens, next.state->seen});
    continuations.push_back({.begin = rows, .end = rows + count, .seen = next.state->seen});
    rows += count;
  }
  Tape tape(Tape::Mode::forward_only);
  const ModelInput row = row_of(tokens, device());
  Variable hidden = embed(tape, row);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    for (std::size_t i = 0; i < sequences.size(); ++i)
      continuations[i].state = sequences[i].state->blocks[layer].get();
    hidden = blocks_[layer]->extend(tape, hidden, row, continuations);
  }
  const Tensor last = Tensor::empty({static_cast<std::int64_t>(sequences.size()), hidden.value.dim(1)},
                                    hidden.value.dtype(), device());
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    last.slice(at, at + 1).copy_from(hidden.value.slice(continuations[i].end - 1, continuations[i].end));
    sequences[i].state->seen += static_cast<std::int64_t>(sequences[i].tokens.size());
  }
  return final_norm_->forward(tape, {last, {}}).value;
}

}  // namespace conclave
