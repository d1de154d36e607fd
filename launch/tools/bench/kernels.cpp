// The kernels of a step one by one, in the recipe's shapes and precision, each beside its roofline (Williams,
// Waterman and Patterson, 2009): no kernel can be faster than its bytes at the memory's rate, nor than its
// operations at the rate of products. Both rates are measured here, in each repeat.
#include <algorithm>
#include <functional>

#include "framework/device/profile.h"
#include "framework/kernels/kernels.h"
#include "framework/kernels/rope.h"
#include "framework/kernels/rope_frequencies.h"
#include "launch/tools/bench/bench.h"

namespace conclave {
namespace {

/// The sizes of the calls: those of one micro-batch on one rank that has all heads and experts.
struct Sizes {
  explicit Sizes(const Recipe& recipe)
      : sequences(recipe.training.micro_batch_size),
        length(recipe.data.sequence_length),
        tokens(sequences * length),
        hidden(recipe.model.hidden_size),
        heads(recipe.model.num_attention_heads),
        kv_heads(recipe.model.num_key_value_heads),
        head_width(recipe.model.head_dim),
        experts(recipe.model.moe.num_experts),
        top_k(recipe.model.moe.num_experts_per_tok),
        inner(recipe.model.moe.moe_intermediate_size) {}
  std::int64_t sequences, length, tokens, hidden, heads, kv_heads, head_width, experts, top_k, inner;
};

/// One kernel with its arguments, and what it has to do at least.
struct Call {
  const char* name;
  std::function<void()> run;
  Profile::Work work;
  std::vector<double> seconds{}, roofline{};  // one per repeat
};

/// Every query sees the keys of its sequence up to its own.
KeyRanges causal(const Sizes& z, Device& device) {
  std::vector<std::int32_t> first(static_cast<std::size_t>(z.tokens), 0), last;
  for (std::int64_t t = 0; t < z.tokens; ++t) last.push_back(static_cast<std::int32_t>(t % z.length));
  return {Tensor::from(first, {z.sequences, z.length}, device),
          Tensor::from(last, {z.sequences, z.length}, device)};
}

/// The products of attention under a causal mask, of which backward makes five for forward's two (Dao,
/// FlashAttention-2, arXiv 2307.08691).
double attention_operations(const Sizes& z, double products) {
  const auto pairs = static_cast<double>(z.sequences * z.heads * z.length * (z.length + 1) / 2);
  return products * 2 * pairs * static_cast<double>(z.head_width);
}

/// What the kernels of a call say of themselves; it is run once for that.
Profile::Work work_of(const std::function<void()>& run) {
  Profile profile;
  {
    const Profile::Recording recording(profile);
    run();
  }
  Profile::Work work;
  for (const auto& [key, sum] : profile.sums())
    if (key.kind == Profile::Kind::kernel) {
      work.bytes += sum.bytes;
      work.operations += sum.operations;
    }
  return work;
}

/// Adds the call of a kernel with its arguments, which it keeps.
template <class Signature, class... Arguments>
Call& enter(std::vector<Call>& calls, const Kernel<Signature>& kernel, const Arguments&... arguments) {
  const std::function<void()> run = [&kernel, arguments...] { kernel(arguments...); };
  calls.push_back({kernel.name(), run, work_of(run)});
  return calls.back();
}

void enter_attention(std::vector<Call>& calls, const Sizes& z, DType dtype, Device& device) {
  const auto heads = [&](std::int64_t count) {
    return random_tensor({z.sequences, z.length, count * z.head_width}, dtype, device);
  };
  const Tensor query = heads(z.heads), key = heads(z.kv_heads), value = heads(z.kv_heads),
               out = heads(z.heads), dout = heads(z.heads), dquery = heads(z.heads), dkey = heads(z.kv_heads),
               dvalue = heads(z.kv_heads);
  const Tensor log_sum_exp = Tensor::zeros({z.sequences, z.heads, z.length}, sum_type(dtype), device);
  const KeyRanges ranges = causal(z, device);
  const double scale = 1.0 / static_cast<double>(z.head_width);
  const Kernels& kernels = kernels_of(query);
  enter(calls, kernels.attention, query, key, value, ranges, z.head_width, scale, out, log_sum_exp)
      .work.operations = attention_operations(z, 2);
  enter(calls, kernels.attention_backward, query, key, value, ranges, z.head_width, scale, out, log_sum_exp,
        dout, dquery, dkey, dvalue)
      .work.operations = attention_operations(z, 5);
  const Tensor rotated = query.view({z.tokens, z.heads, z.head_width});
  std::vector<std::int32_t> columns;
  for (std::int64_t t = 0; t < z.tokens; ++t) columns.push_back(static_cast<std::int32_t>(t % z.length));
  enter(calls, kernels.family<RopeKernels>().rope, rotated, Tensor::from(columns, {z.tokens}, device),
        RopeFrequencies{}, z.head_width, Rotation::forward, dquery.view({z.tokens, z.heads, z.head_width}));
}

void enter_experts(std::vector<Call>& calls, const Sizes& z, DType dtype, Device& device) {
  const Tensor x = random_tensor({z.tokens, z.hidden}, dtype, device), y = x.clone();
  const Kernels& kernels = kernels_of(x);
  // Token t goes to experts that lie apart, as evenly as can be.
  std::vector<std::int32_t> chosen;
  for (std::int64_t t = 0; t < z.tokens; ++t)
    for (std::int64_t k = 0; k < z.top_k; ++k)
      chosen.push_back(static_cast<std::int32_t>((t * z.top_k + k) % z.experts));
  const Tensor experts = Tensor::from(chosen, {z.tokens, z.top_k}, device);
  RowOrder order = kernels.sort_by_expert(experts, z.experts);
  order.offsets = RowOffsets(order.offsets, order.offsets.on_host());
  enter(calls, kernels.sort_by_expert, experts, z.experts);

  const std::int64_t rows = z.tokens * z.top_k;
  const Tensor sent = random_tensor({rows, z.hidden}, dtype, device), back = sent.clone(),
               gate = random_tensor({rows, z.inner}, dtype, device), up = gate.clone(), dinner = gate.clone(),
               dgate = gate.clone(), dup = gate.clone();
  const Tensor weight = random_tensor({z.experts, z.inner, z.hidden}, dtype, device);
  const Tensor dweight = Tensor::empty(weight.shape(), sum_type(dtype), device);
  const Tensor shares = Tensor::zeros({z.tokens, z.top_k}, sum_type(dtype), device), dshares = shares.clone();
  enter(calls, kernels.permute_rows, x, order, sent);
  enter(calls, kernels.permute_rows_backward, sent, order, y);
  enter(calls, kernels.combine_rows, sent, shares, order, y);
  enter(calls, kernels.combine_rows_backward, sent, shares, order, y, back, dshares);
  enter(calls, kernels.grouped_linear, sent, weight, order.offsets, gate);
  enter(calls, kernels.grouped_linear_dx, gate, weight, order.offsets, back, Write::overwrite);
  enter(calls, kernels.grouped_linear_dweight, gate, sent, order.offsets, dweight, Write::overwrite);
  enter(calls, kernels.swiglu, gate, up, dinner);
  enter(calls, kernels.swiglu_backward, gate, up, dinner, dgate, dup);
}

void enter_rest(std::vector<Call>& calls, const Sizes& z, DType dtype, Device& device) {
  const Tensor x = random_tensor({z.tokens, z.hidden}, dtype, device), y = x.clone(), dx = x.clone();
  const Tensor weight = random_tensor({z.hidden}, dtype, device);
  const Tensor inverse_rms = Tensor::zeros({z.tokens}, sum_type(dtype), device),
               dweight = Tensor::zeros({z.hidden}, sum_type(dtype), device);
  const Kernels& kernels = kernels_of(x);
  enter(calls, kernels.rms_norm, x, weight, 1e-6, y, inverse_rms);
  enter(calls, kernels.rms_norm_backward, x, weight, inverse_rms, y, dx, dweight, Write::overwrite);
  enter(calls, kernels.add, x, y, dx);
}

/// The rates that no kernel can pass: of bytes by a copy, and of operations by the best product.
struct Rates {
  double bytes, operations;
};

Rates measure_rates(const Tensor& from, const Tensor& to, const Products& products) {
  constexpr int copies = 5;
  const double copied = seconds_on(from.device(), [&] {
    for (int i = 0; i < copies; ++i) to.copy_from(from);
  });
  const std::vector<double> rates = products.measure(0.02);
  return {2.0 * copies * static_cast<double>(from.bytes()) / copied,
          *std::max_element(rates.begin(), rates.end())};
}

}  // namespace

void bench_kernels(Bench& bench) {
  const Sizes sizes(bench.recipe);
  const DType dtype = dtype_of_precision(bench.recipe.training.precision);
  std::vector<Call> calls;
  enter_experts(calls, sizes, dtype, bench.device);
  enter_attention(calls, sizes, dtype, bench.device);
  enter_rest(calls, sizes, dtype, bench.device);

  const Products products(product_shapes(bench.recipe), dtype, bench.device);
  const std::int64_t copied = bench.device.kind() == DeviceKind::cuda ? std::int64_t{1} << 28 : 1 << 24;
  const Tensor from = Tensor::zeros({copied}, DType::float32, bench.device), to = from.clone();
  const int queued = bench.device.kind() == DeviceKind::cuda ? 10 : 1;
  for (std::int64_t repeat = -1; repeat < bench.repeats; ++repeat) {
    bench.mesh.world().barrier();
    const Rates rates = measure_rates(from, to, products);
    for (Call& call : calls) {
      const double seconds = seconds_on(bench.device, [&] {
        for (int i = 0; i < queued; ++i) call.run();
      });
      if (repeat < 0) continue;  // memory is taken
      call.seconds.push_back(seconds / queued);
      call.roofline.push_back(
          std::max(call.work.bytes / rates.bytes, call.work.operations / rates.operations));
    }
  }
  for (const Call& call : calls)
    bench.figures.push_back({.subject = "kernels",
                             .name = call.name,
                             .unit = "s",
                             .values = call.seconds,
                             .limit = "its roofline",
                             .limits = call.roofline,
                             .better = Better::lower});
}

}  // namespace conclave
