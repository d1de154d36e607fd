#include "layers/attention.h"

#include "framework/autograd/ops/attention.h"

namespace conclave {
namespace {

/// The same values and gradient under another shape of equal size.
Variable reshape(Tape& tape, const Variable& x, Shape shape) {
  Variable viewed = tape.output(x.value.view(shape));
  tape.record("reshape", [from = x.gradient, to = viewed.gradient, original = x.value.shape()] {
    from.add(to.take().view(original));
  });
  return viewed;
}

}  // namespace

Attention::Attention(ParameterSet& parameters, const std::string& name, const TransformerRecipe& model,
                     std::int64_t block, const InitialRange& range, const Parallelism& parallelism)
    : parallelism_(parallelism),
      heads_(model.num_attention_heads / parallelism.tensor().size()),
      kv_heads_(model.num_key_value_heads / parallelism.tensor().size()),
      head_width_(model.head_dim),
      rotary_width_(turns_positions(model, block) ? rotary_width(model) : 0),
      frequencies_(rope_frequencies(model)),
      norm_after_rope_(model.qk_norm_after_rope),
      query_(parameters, name + ".q_proj", model.hidden_size, model.num_attention_heads * head_width_,
             range.inner, Parallelism::cut(0)),
      key_(parameters, name + ".k_proj", model.hidden_size, model.num_key_value_heads * head_width_,
           range.inner, Parallelism::cut(0)),
      value_(parameters, name + ".v_proj", model.hidden_size, model.num_key_value_heads * head_width_,
             range.inner, Parallelism::cut(0)),
      output_(parameters, name + ".o_proj", model.num_attention_heads * head_width_, model.hidden_size,
              range.residual, Parallelism::cut(1)) {
  if (model.attention_bias != AttentionBias::none) {
    query_bias_.emplace(parameters, name + ".q_proj", model.num_attention_heads * head_width_,
                        Parallelism::cut(0));
    key_bias_.emplace(parameters, name + ".k_proj", model.num_key_value_heads * head_width_,
                      Parallelism::cut(0));
    value_bias_.emplace(parameters, name + ".v_proj", model.num_key_value_heads * head_width_,
                        Parallelism::cut(0));
  }
  // The terms of all tensor ranks are summed before it is added.
  if (model.attention_bias == AttentionBias::all)
    output_bias_.emplace(parameters, name + ".o_proj", model.hidden_size, parallelism.residual());
  if (!model.qk_norm) return;
  check(model.qk_norm_over == QkNormOver::head || parallelism.tensor().size() == 1, Fault::request,
        "model.qk_norm_over: ", model.qk_norm_over,
        " came with parallel.tensor: ", parallelism.tensor().size(),
        ", which parts the heads; expected qk_norm_over: head, or one tensor rank");
  const NormWidths widths = qk_norm_widths(model);
  query_norm_.emplace(parameters, name + ".q_norm", widths.query, model.rms_norm_eps,
                      Parallelism::per_rank());
  key_norm_.emplace(parameters, name + ".k_norm", widths.key, model.rms_norm_eps, Parallelism::per_rank());
}

Variable Attention::prepared(Tape& tape, Variable projected, const Tensor& positions, std::int64_t heads,
                             const std::optional<RmsNorm>& norm) const {
  const Shape rows = projected.value.shape();
  // Rows are as wide as the weight of the norm, whichever way the heads are seen.
  if (norm && !norm_after_rope_) projected = norm->forward(tape, projected);
  if (rotary_width_ > 0) {
    projected = reshape(tape, projected, {rows[0], heads, head_width_});
    projected = rope(tape, projected, positions, frequencies_, rotary_width_);
  }
  if (norm && norm_after_rope_) projected = norm->forward(tape, projected);
  return reshape(tape, projected, {rows[0], heads * head_width_});
}

Attention::Projected Attention::project(Tape& tape, const Variable& x, const Tensor& positions) const {
  const auto biased = [&](const Linear& projection, const std::optional<Bias>& bias) {
    const Variable projected = projection.forward(tape, x);
    return bias ? bias->forward(tape, projected) : projected;
  };
  const Variable query = prepared(tape, biased(query_, query_bias_), positions, heads_, query_norm_);
  const Variable key = prepared(tape, biased(key_, key_bias_), positions, kv_heads_, key_norm_);
  return {query, key, biased(value_, value_bias_)};
}

Variable Attention::forward(Tape& tape, const Variable& residual, const ModelInput& input) const {
  const Variable x = parallelism_.enter_tensor(tape, residual);
  const Projected row = project(tape, x, input.positions);
  const auto in_sequences = [&](const Variable& of) {
    return reshape(tape, of, {input.sequences, input.length, of.value.dim(1)});
  };
  const Variable query = in_sequences(row.query), key = in_sequences(row.key),
                 value = in_sequences(row.value);
  const Variable mixed = attention(tape, query, key, value, input.key_ranges, head_width_);
  const Variable sum = parallelism_.leave_tensor(
      tape, output_.forward(tape, reshape(tape, mixed, {x.value.dim(0), heads_ * head_width_})));
  return output_bias_ ? output_bias_->forward(tape, sum) : sum;
}

namespace {

class KeyValues final : public MixerState {
 public:
  KeyValues(Shape shape, DType dtype, Device& device)
      : key(Tensor::empty(shape, dtype, device)), value(Tensor::empty(shape, dtype, device)) {}
  Tensor key, value;  // [tokens, kv_heads * head_width]
};

}  // namespace

std::unique_ptr<MixerState> Attention::make_state(std::int64_t tokens, DType dtype, Device& device) const {
  return std::make_unique<KeyValues>(Shape{tokens, kv_heads_ * head_width_}, dtype, device);
}

std::size_t Attention::state_bytes(std::int64_t tokens, DType dtype) const {
  return 2 * static_cast<std::size_t>(tokens * kv_heads_ * head_width_) * element_bytes(dtype);
}

Variable Attention::extend(Tape& tape, const Variable& x, const ModelInput& row,
                           std::span<const Continuation> continuations) const {
  check(!tape.recording() && parallelism_.tensor().size() == 1,
        "Attention::extend: it is for generation on one tensor rank, and nothing can be differentiated");
  const Projected now = project(tape, x, row.positions);
  const Tensor mixed =
      Tensor::empty(now.query.value.shape(), now.query.value.dtype(), now.query.value.device());
  for (const Continuation& next : continuations) {
    const auto& state = dynamic_cast<const KeyValues&>(*next.state);
    const std::int64_t tokens = next.end - next.begin, keys = next.seen + tokens;
    state.key.slice(next.seen, keys).copy_from(now.key.value.slice(next.begin, next.end));
    state.value.slice(next.seen, keys).copy_from(now.value.value.slice(next.begin, next.end));
    const auto as_sequence = [](const Tensor& rows) { return rows.view({1, rows.dim(0), rows.dim(1)}); };
    const KeyRanges ranges{row.key_ranges.first.part(next.begin, {1, tokens}),
                           row.key_ranges.last.part(next.begin, {1, tokens})};
    const Variable seen = attention(tape, {as_sequence(now.query.value.slice(next.begin, next.end)), {}},
                                    {as_sequence(state.key.slice(0, keys)), {}},
                                    {as_sequence(state.value.slice(0, keys)), {}}, ranges, head_width_);
    mixed.slice(next.begin, next.end).copy_from(seen.value.view({tokens, heads_ * head_width_}));
  }
  const Variable sum = output_.forward(tape, {mixed, {}});
  return output_bias_ ? output_bias_->forward(tape, sum) : sum;
}

}  // namespace conclave
