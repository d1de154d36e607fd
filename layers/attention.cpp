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
                     const InitialRange& range, const Parallelism& parallelism)
    : parallelism_(parallelism),
      heads_(model.num_attention_heads / parallelism.tensor().size()),
      kv_heads_(model.num_key_value_heads / parallelism.tensor().size()),
      head_width_(model.head_dim),
      rotary_width_(rotary_width(model)),
      rope_theta_(model.rope_theta),
      query_(parameters, name + ".q_proj", model.hidden_size, model.num_attention_heads * head_width_,
             range.inner, Parallelism::cut(0)),
      key_(parameters, name + ".k_proj", model.hidden_size, model.num_key_value_heads * head_width_,
           range.inner, Parallelism::cut(0)),
      value_(parameters, name + ".v_proj", model.hidden_size, model.num_key_value_heads * head_width_,
             range.inner, Parallelism::cut(0)),
      output_(parameters, name + ".o_proj", model.num_attention_heads * head_width_, model.hidden_size,
              range.residual, Parallelism::cut(1)) {
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

Variable Attention::forward(Tape& tape, const Variable& residual, const ModelInput& input) const {
  const Variable x = parallelism_.enter_tensor(tape, residual);
  const std::int64_t tokens = x.value.dim(0);
  // [tokens, heads * head_width] -> normalised, and rotated per head -> [sequences, length, heads *
  // head_width]
  const auto prepare = [&](Variable projected, std::int64_t heads, const std::optional<RmsNorm>& norm) {
    // Rows are as wide as the weight of the norm, whichever way the heads are seen.
    if (norm) projected = norm->forward(tape, projected);
    projected = reshape(tape, projected, {tokens, heads, head_width_});
    projected = rope(tape, projected, input.positions, rope_theta_, rotary_width_);
    return reshape(tape, projected, {input.sequences, input.length, heads * head_width_});
  };
  const Variable query = prepare(query_.forward(tape, x), heads_, query_norm_);
  const Variable key = prepare(key_.forward(tape, x), kv_heads_, key_norm_);
  const Variable value =
      reshape(tape, value_.forward(tape, x), {input.sequences, input.length, kv_heads_ * head_width_});
  const Variable mixed = attention(tape, query, key, value, input.document_start, head_width_);
  return parallelism_.leave_tensor(
      tape, output_.forward(tape, reshape(tape, mixed, {tokens, heads_ * head_width_})));
}

}  // namespace conclave
