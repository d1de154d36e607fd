// The shared experts compute while the tokens travel to the routed ones, in forward, and while the gradients
// of these tokens travel back, in backward.
#include <gtest/gtest.h>

#include <algorithm>

#include "layers/moe/moe.h"
#include "tests/launch/synthetic.h"
#include "tests/parallel/mirror_communicator.h"

namespace conclave {
namespace {

using Words = std::vector<std::string>;

TEST(MoeOverlap, SharedExpertsComputeBetweenStartAndEndOfTheExchange) {
  const Recipe recipe = test::tiny_recipe();
  const ModelInput input = to_device(test::synthetic_batch(recipe, 0, 0, 2));
  const std::int64_t tokens = input.tokens.elements(), hidden = recipe.model.hidden_size;
  test::Log log;
  const Mesh mesh(std::make_shared<test::MirrorCommunicator>(log), {.expert = 2});
  ParameterSet parameters(mesh.layout(), 0);
  const Moe moe(parameters, "mlp", recipe.model, {}, {.mesh = mesh},
                make_router(parameters, "mlp", recipe.model));
  parameters.materialize(DType::float64, 3);
  for (const Parameter& parameter : parameters.all())
    parameter.gradient.when_complete([&log, name = parameter.name] { log.write(name); });

  Tape tape;
  const Tensor value =
      Tensor::from(std::vector<double>(static_cast<std::size_t>(tokens * hidden), 0.1), {tokens, hidden});
  const Variable x{value, Gradient::of(value)};
  const Variable y = moe.forward(tape, x, input).y;
  const std::vector<test::LogEntry> forward = log.take();
  // Exchanges: counts, tokens, answers.
  ASSERT_EQ(test::words_of(forward), (Words{"start 0", "wait 0", "start 1", "wait 1", "start 2", "wait 2"}));
  // While tokens travel gate, up and their product have been made; while answers do, nothing.
  const std::int64_t inner = recipe.model.moe.moe_intermediate_size;
  EXPECT_GE(forward[3].live_bytes - forward[2].live_bytes, static_cast<std::size_t>(8 * tokens * 3 * inner));
  EXPECT_EQ(forward[5].live_bytes, forward[4].live_bytes);

  y.gradient.add(
      Tensor::from(std::vector<double>(static_cast<std::size_t>(tokens * hidden), 1.0), {tokens, hidden}));
  tape.backward();
  // The gradients of the answers travel, the experts differentiate; then those of the tokens leave, the
  // shared experts differentiate, and only then are the tokens' gradients waited for.
  Words backward = test::words_of(log.take());
  ASSERT_EQ(backward.size(), 11u);
  std::sort(backward.begin() + 2, backward.begin() + 5);  // gate and up in any order
  std::sort(backward.begin() + 6, backward.begin() + 9);
  EXPECT_EQ(backward, (Words{"start 3", "wait 3", "mlp.experts.down_proj.weight",
                             "mlp.experts.gate_proj.weight", "mlp.experts.up_proj.weight", "start 4",
                             "mlp.shared_experts.down_proj.weight", "mlp.shared_experts.gate_proj.weight",
                             "mlp.shared_experts.up_proj.weight", "wait 4", "mlp.gate.weight"}));
}

}  // namespace
}  // namespace conclave
