// training.device as users meet it: the command trains on the emulated device what it trains on the CPU, over
// ranks that share out experts; runs go on, are evaluated and sampled on either; cuda where there is none is
// the request's fault, said once and before anything is written.
#include <cmath>

#include "launch/train/job.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {

class DeviceCommand : public Command {
 protected:
  static std::vector<double> losses(const std::string& output) {
    std::vector<double> values;
    for (const Json& line : metrics(output))
      if (!line.contains("split")) values.push_back(line.at("lm_loss"));
    return values;
  }
  static void expect_close(const std::vector<double>& a, const std::vector<double>& b, std::size_t count) {
    ASSERT_EQ(a.size(), count);
    ASSERT_EQ(b.size(), count);
    for (std::size_t i = 0; i < count; ++i) EXPECT_NEAR(a[i], b[i], 1e-4 * b[i]) << "step " << i + 1;
  }
};

const std::string experts_apart =
    " parallel.expert=2 training.steps=20 checkpoint.interval=10 evaluation.interval=10 optimizer.lr=0.003";

TEST(SharedGpu, IsNamedWithItsRanks) {
  EXPECT_EQ(shared_gpu({"a", "b", "", ""}), "");
  const std::string sentence = shared_gpu({"a", "b", "c", "b"});
  EXPECT_NE(sentence.find("ranks 1 and 3 see the same GPU"), std::string::npos) << sentence;
}

TEST_F(DeviceCommand, TrainsWithExpertsOnTwoRanksAsTheCpuDoes) {
  const Outcome cpu = train("cpu", experts_apart, 2);
  ASSERT_EQ(cpu.exit_code, 0) << cpu.output;
  const Outcome emulated = train("emulated", experts_apart + " training.device=emulated", 2);
  ASSERT_EQ(emulated.exit_code, 0) << emulated.output;
  EXPECT_NE(emulated.output.find("on emulated"), std::string::npos);
  expect_close(losses("emulated"), losses("cpu"), 20);
  EXPECT_LT(losses("cpu").back(), losses("cpu").front() - 0.1)
      << "it does not learn: equal losses mean little";

  // Each half on the other device: the checkpoint of the middle is the only thing that they share.
  for (const auto& [first, second] : {std::pair{"cpu", "emulated"}, std::pair{"emulated", "cpu"}}) {
    const std::string output = std::string(first) + "-then-" + second;
    const Outcome half = train(output, experts_apart + " training.steps=10 training.device=" + first, 2);
    ASSERT_EQ(half.exit_code, 0) << half.output;
    const Outcome whole = train(output, experts_apart + " training.device=" + second, 2);
    ASSERT_EQ(whole.exit_code, 0) << whole.output;
    expect_close(losses(output), losses("cpu"), 20);
  }

  // Numbers of an evaluation and a text without chance, of one checkpoint on both devices.
  const auto evaluation = [](const std::string& device) {
    return conclave_command("evaluate " + path("emulated") + " --batches 1 training.device=" + device, 2);
  };
  EXPECT_EQ(evaluation("emulated").exit_code, 0);
  EXPECT_EQ(evaluation("emulated").output.substr(0, 200), evaluation("cpu").output.substr(0, 200));
  const auto text = [](const std::string& device) {
    return conclave_command("generate " + path("emulated") +
                            " --prompt 1 --tokens 8 --temperature 0 --device " + device);
  };
  EXPECT_EQ(text("emulated").exit_code, 0) << text("emulated").output;
  EXPECT_EQ(text("emulated").output, text("cpu").output);
}

TEST_F(DeviceCommand, TrainsOnGpusAsTheCpuDoes) {
  // As many ranks as have a GPU each.
  int ranks = 2;
  Outcome cuda = train("cuda", experts_apart + " training.device=cuda", ranks);
  if (cuda.exit_code == 2)
    cuda = train("cuda", experts_apart + " parallel.expert=1 training.device=cuda", ranks = 1);
  if (cuda.exit_code == 2) GTEST_SKIP() << "no run trained on a GPU: " << cuda.output;
  ASSERT_EQ(cuda.exit_code, 0) << cuda.output;
  ASSERT_EQ(train("beside-cuda", experts_apart, 2).exit_code, 0);
  expect_close(losses("cuda"), losses("beside-cuda"), 20);
}

TEST_F(DeviceCommand, CudaWhereThereIsNoneIsTheRequestsFault) {
  for (const int ranks : {1, 2}) {
    const Outcome outcome = train("nowhere", " training.device=cuda", ranks);
    if (outcome.exit_code == 0) GTEST_SKIP() << "there is a GPU";
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, "training.device: cuda came, but this "), 1u) << outcome.output;
    EXPECT_FALSE(std::filesystem::exists(path("nowhere"))) << "something was written";
  }
}

}  // namespace
}  // namespace conclave
