// Adds a layer of one's own, down to the op: an MLP with the squared ReLU of Primer (So et al., arXiv
// 2109.08668). An op computes its result and leaves on the tape what backward will do; a layer makes its
// parameters and calls ops; gradient reduction, optimizer and checkpoints then see nothing but names. Ends
// with 1 when the model has not learned its task.
#include <algorithm>

#include "framework/autograd/ops/vocabulary.h"
#include "framework/base/random.h"
#include "framework/telemetry/logger.h"
#include "layers/linear.h"
#include "layers/model_input.h"
#include "optim/optimizer.h"

using namespace conclave;

namespace {

constexpr std::int64_t tokens = 256, vocabulary = 64, hidden = 64, inner = 128;

/// y = max(x, 0)^2, of any shape, in fp32 on the CPU; dx = 2 max(x, 0) dy. An op for every device and type
/// calls a kernel in place of the loops (framework/kernels/kernels.h).
Variable squared_relu(Tape& tape, const Variable& x) {
  check_tensor(x.value, "squared_relu", "x", x.value.shape(), DType::float32);
  const auto elements = static_cast<std::size_t>(x.value.elements());
  Variable y = tape.output(Tensor::empty(x.value.shape(), DType::float32));
  const float* in = x.value.data<float>();
  float* out = y.value.data<float>();
  for (std::size_t i = 0; i < elements; ++i) out[i] = in[i] > 0 ? in[i] * in[i] : 0;
  // What is captured is what backward keeps: x, and the place where the gradient of y gathers.
  tape.record("squared_relu", [elements, x, out_gradient = y.gradient] {
    const Tensor dy = out_gradient.take();
    if (!x.gradient.needed()) return;
    const Tensor dx = Tensor::empty(x.value.shape(), DType::float32);
    for (std::size_t i = 0; i < elements; ++i)
      dx.data<float>()[i] = 2 * std::max(x.value.data<float>()[i], 0.0f) * dy.data<float>()[i];
    x.gradient.add(dx);
  });
  return y;
}

/// x [rows, hidden] -> x + down(squared_relu(up(norm(x)))). Parameters: NAME.norm, NAME.up, NAME.down.
class SquaredReluMlp {
 public:
  SquaredReluMlp(ParameterSet& parameters, const std::string& name)
      : norm_(parameters, name + ".norm", hidden, 1e-6),
        up_(parameters, name + ".up", hidden, inner, 0.05),
        down_(parameters, name + ".down", inner, hidden, 0.05) {}
  Variable forward(Tape& tape, const Variable& x) const {
    return add(tape, x, down_.forward(tape, squared_relu(tape, up_.forward(tape, norm_.forward(tape, x)))));
  }

 private:
  RmsNorm norm_;
  Linear up_, down_;
};

/// Any token t, after which 5 t + 3 comes, modulo the vocabulary.
ModelInput task(std::uint64_t step) {
  Batch batch{.sequences = 1, .length = tokens};
  batch.document_start.assign(tokens, 0);
  for (std::uint64_t i = 0; i < tokens; ++i) {
    batch.tokens.push_back(static_cast<std::int32_t>(RandomKey(1).with(step).below(i, vocabulary)));
    batch.targets.push_back((5 * batch.tokens.back() + 3) % vocabulary);
  }
  return to_device(batch);
}

}  // namespace

int main() {
  Logger logger;
  ParameterSet parameters;
  const Parameter& embeddings = parameters.create("embeddings", {vocabulary, hidden}, {}, Decay::yes);
  const SquaredReluMlp mlp(parameters, "mlp");
  const Parameter& head = parameters.create("head", {vocabulary, hidden}, {}, Decay::yes);
  parameters.materialize(DType::float32, 1234);
  GradientReducer reducer(parameters, Mesh::alone());
  const auto optimizer = make_optimizer(parameters, reducer, {});
  double loss = 0;
  for (std::uint64_t step = 0; step < 100; ++step) {
    const ModelInput input = task(step);
    parameters.clear_gradients();
    Tape tape;
    const Variable x = mlp.forward(tape, embedding(tape, input.tokens, embeddings.use(tape)));
    const auto result =
        linear_cross_entropy(tape, x, head.use(tape), input.targets, {.loss_scale = 1.0 / tokens});
    tape.backward(result.objective);
    reducer.finish();
    optimizer->step(/*learning_rate=*/3e-3, /*gradient_scale=*/1.0);
    loss = result.loss_sum() / tokens;
    if (step % 20 == 19) logger.info("step ", step + 1, "  loss ", loss);
  }
  return loss < 0.5 ? 0 : 1;  // of log(64) = 4.16 before the first step
}
