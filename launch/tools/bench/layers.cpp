// One layer of each kind at a time, on one micro-batch: where the time of a step goes. "Bare" is what cannot
// be saved: the layer's matrix products alone, forward and backward.
#include <algorithm>
#include <cmath>

#include "launch/plan/plan.h"
#include "launch/tools/bench/bench.h"
#include "layers/attention.h"

namespace conclave {
namespace {

/// A layer's parameters and its input on this rank.
struct Subject {
  Subject(const Bench& bench, std::int64_t rows)
      : parameters(bench.mesh.layout(), bench.mesh.world().rank()),
        dtype(dtype_of_precision(bench.recipe.training.precision)),
        input(
            to_device(bench_batch(bench.recipe, 0, 0, bench.recipe.training.micro_batch_size), bench.device)),
        x(random_tensor({rows, bench.recipe.model.hidden_size}, dtype, bench.device)) {}

  void materialize(const Bench& bench) {
    parameters.materialize(dtype, bench.recipe.training.seed, bench.device);
  }

  /// Seconds of forward, and backward from gradients of y in place of those of a loss.
  double seconds(const std::function<Variable(Tape&, const Variable&)>& forward, const Tensor& dy) {
    parameters.clear_gradients();
    return seconds_on(x.device(), [&] {
      Tape tape;
      const Variable y = forward(tape, {x, Gradient::of(x)});
      y.gradient.add(dy.clone());
      tape.backward();
    });
  }

  ParameterSet parameters;
  DType dtype;
  ModelInput input;
  Tensor x;  // [rows of the residual stream, hidden]
};

/// The grouped products of this rank's experts on their even share of rows, forward and backward.
class BareExperts {
 public:
  BareExperts(const Bench& bench, const ParameterSet& parameters, DType dtype)
      : gate_(parameters.find("mlp.experts.gate_proj.weight").value),
        up_(parameters.find("mlp.experts.up_proj.weight").value),
        down_(parameters.find("mlp.experts.down_proj.weight").value) {
    const int ranks = bench.mesh.world().size();
    const std::int64_t experts = gate_.dim(0), inner = gate_.dim(1), hidden = gate_.dim(2);
    const std::int64_t rows = plan_layout(bench.recipe, ranks).expected_expert_rows;
    std::vector<std::int64_t> offsets;
    for (std::int64_t e = 0; e <= experts; ++e) offsets.push_back(rows * e / experts);
    offsets_ = RowOffsets(Tensor::from(offsets, {experts + 1}, bench.device), offsets);
    x_ = random_tensor({rows, hidden}, dtype, bench.device);
    y_ = x_.clone();
    inner_ = random_tensor({rows, inner}, dtype, bench.device);
    dinner_ = inner_.clone();
    dweight_ = Tensor::empty({experts, inner, hidden}, sum_type(dtype), bench.device);
  }

  double seconds() const {
    const Kernels& kernels = kernels_of(x_);
    return seconds_on(x_.device(), [&] {
      for (const Tensor& weight : {gate_, up_}) kernels.grouped_linear(x_, weight, offsets_, inner_);
      kernels.grouped_linear(inner_, down_, offsets_, y_);
      kernels.grouped_linear_dx(y_, down_, offsets_, dinner_, Write::overwrite);
      kernels.grouped_linear_dweight(y_, inner_, offsets_, dweight_.view(down_.shape()), Write::overwrite);
      for (const Tensor& weight : {gate_, up_}) {
        kernels.grouped_linear_dx(dinner_, weight, offsets_, x_, Write::overwrite);
        kernels.grouped_linear_dweight(dinner_, x_, offsets_, dweight_, Write::overwrite);
      }
    });
  }

 private:
  Tensor gate_, up_, down_, x_, y_, inner_, dinner_, dweight_;
  RowOffsets offsets_;
};

/// Rows of the residual stream on this rank.
std::int64_t residual_rows(const Bench& bench) {
  const LayoutPlan layout = plan_layout(bench.recipe, bench.mesh.world().size());
  return bench.recipe.parallel.sequence ? layout.tokens_per_shard : layout.tokens_per_micro_batch;
}

void add_figure(Bench& bench, const std::string& name, const std::vector<double>& seconds,
                const std::string& limit, const std::vector<double>& limits) {
  bench.figures.push_back({.subject = "layers",
                           .name = name,
                           .unit = "s",
                           .values = seconds,
                           .limit = limit,
                           .limits = limits,
                           .better = Better::lower});
}

void bench_moe(Bench& bench) {
  Subject subject(bench, residual_rows(bench));
  const ModelRecipe& model = bench.recipe.model;
  const Moe moe(subject.parameters, "mlp", model, {}, parallelism_of(bench.recipe, bench.mesh),
                make_router(subject.parameters, "mlp", model));
  subject.materialize(bench);
  const BareExperts bare(bench, subject.parameters, subject.dtype);
  const Tensor dy = random_tensor(subject.x.shape(), subject.dtype, bench.device);
  std::vector<double> values, limits;
  for (std::int64_t repeat = -1; repeat < bench.repeats; ++repeat) {
    bench.mesh.world().barrier();
    const double limit = bare.seconds();
    bench.mesh.world().barrier();
    const double value = subject.seconds(
        [&](Tape& tape, const Variable& x) { return moe.forward(tape, x, subject.input).y; }, dy);
    if (repeat < 0) continue;  // memory is taken
    values.push_back(value);
    limits.push_back(limit);
  }
  add_figure(bench, "experts' block, forward and backward", values, "its bare expert products", limits);
}

/// Products of the shapes of a layer at the best rate of any product.
std::vector<double> at_rates(double flops, const std::vector<double>& rates) {
  std::vector<double> seconds;
  for (const double rate : rates) seconds.push_back(flops / rate);
  return seconds;
}

void bench_attention_and_head(Bench& bench) {
  const ModelRecipe& model = bench.recipe.model;
  const auto tensor = static_cast<double>(bench.recipe.parallel.tensor);
  Subject subject(bench, residual_rows(bench));
  const Parallelism parallelism = parallelism_of(bench.recipe, bench.mesh);
  const Attention attention(subject.parameters, "self_attn", model, 0, {}, parallelism);
  const Parameter& head = subject.parameters.create("lm_head.weight", {model.vocab_size, model.hidden_size},
                                                    {}, Decay::yes, Parallelism::cut(0));
  subject.materialize(bench);
  const auto tokens = static_cast<double>(subject.input.tokens.elements());
  const auto hidden = static_cast<double>(model.hidden_size), width = static_cast<double>(model.head_dim);
  const auto heads = static_cast<double>(model.num_attention_heads),
             kv_heads = static_cast<double>(model.num_key_value_heads);
  // As training_flops_per_token counts: the causal half of attention once.
  const double attention_flops =
      6 * tokens * (2 * hidden * width * (heads + kv_heads)) +
      6 * tokens * static_cast<double>(bench.recipe.data.sequence_length) * heads * width;
  const double head_flops = 6 * tokens * hidden * static_cast<double>(model.vocab_size);

  const Products products(product_shapes(bench.recipe), subject.dtype, bench.device);
  const Tensor dy = random_tensor(subject.x.shape(), subject.dtype, bench.device);
  std::vector<double> of_attention, of_head, rates;
  for (std::int64_t repeat = -1; repeat < bench.repeats; ++repeat) {
    bench.mesh.world().barrier();
    const std::vector<double> now = products.measure(0.05);
    const double attended = subject.seconds(
        [&](Tape& tape, const Variable& x) { return attention.forward(tape, x, subject.input); }, dy);
    // Every tensor rank has the head's rows of its own part of the vocabulary; what they tell each other is
    // left out here.
    double read = 0;
    {
      Tape tape;
      const Tensor whole =
          random_tensor({subject.input.tokens.elements(), model.hidden_size}, subject.dtype, bench.device);
      subject.parameters.clear_gradients();
      read = seconds_on(bench.device, [&] {
        const CrossEntropy loss =
            linear_cross_entropy(tape, {whole, Gradient::of(whole)}, head.use(tape), subject.input.targets,
                                 {.loss_scale = 1 / tokens, .first_id = head.origin[0]});
        tape.backward(loss.objective);
      });
    }
    if (repeat < 0) continue;
    rates.push_back(*std::max_element(now.begin(), now.end()));
    of_attention.push_back(attended);
    of_head.push_back(read);
  }
  const std::string limit =
      join_text("its operations at the best ", bench.recipe.training.precision, " product");
  add_figure(bench, "attention, forward and backward", of_attention, limit,
             at_rates(attention_flops / tensor, rates));
  add_figure(bench, "LM head and loss, forward and backward", of_head, limit,
             at_rates(head_flops / tensor, rates));
}

}  // namespace

void bench_layers(Bench& bench) {
  bench_moe(bench);
  bench_attention_and_head(bench);
}

}  // namespace conclave
