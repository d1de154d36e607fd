// `conclave validate` answers in a moment, whatever it is asked: within a second for a recipe of a cluster,
// and within two for absurd ones, of which it refuses some in a sentence. Processor time counts: other work
// on the machine does not change it.
#include <sys/resource.h>

#include <fstream>

#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {

/// The time of all processes that this one has started and waited for.
double processor_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

class ValidateSpeed : public Command {
 protected:
  static Outcome validate(const std::string& arguments, double most_seconds) {
    const double before = processor_seconds();
    Outcome outcome = conclave_command("validate " + arguments);
    EXPECT_LT(processor_seconds() - before, most_seconds) << arguments;
    return outcome;
  }
};

TEST_F(ValidateSpeed, OfClusters) {
  const std::string folder = CONCLAVE_SOURCE_FOLDER "/examples/cluster/";
  for (const char* recipe : {"qwen3-30b-a3b.yaml --ranks 256", "deepseekmoe-16b.yaml --ranks 512",
                             "mixtral-8x7b.yaml --ranks 512", "olmoe-7b-a1b.yaml --ranks 512"}) {
    const Outcome outcome = validate(folder + recipe, 1);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_NE(outcome.output.find("Memory per rank"), std::string::npos);
  }
}

TEST_F(ValidateSpeed, OfManyBlocks) {
  const Outcome deep = validate(path("recipe.yaml") + " --ranks 4 model.num_hidden_layers=10000", 2);
  EXPECT_EQ(deep.exit_code, 0) << deep.output;
  const Outcome deeper = validate(path("recipe.yaml") + " --ranks 4 model.num_hidden_layers=1000000", 2);
  EXPECT_EQ(deeper.exit_code, 2) << deeper.output;
  EXPECT_NE(deeper.output.find("model.num_hidden_layers: 1000000 blocks came"), std::string::npos)
      << deeper.output;
}

TEST_F(ValidateSpeed, OfManyMicroBatches) {
  const Outcome outcome = validate(path("recipe.yaml") + " training.global_batch_size=1000000000", 2);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_NE(outcome.output.find("500,000,000"), std::string::npos) << outcome.output;
  const Outcome grouped =
      validate(path("recipe.yaml") +
                   " training.global_batch_size=1000000000 'model.moe.balance=[{scope: group, "
                   "balance_batch_size: 1000000000}]'",
               2);
  EXPECT_EQ(grouped.exit_code, 2) << grouped.output;
  EXPECT_NE(grouped.output.find("cannot be planned"), std::string::npos) << grouped.output;
}

TEST_F(ValidateSpeed, OfManyUnknownKeys) {
  std::ofstream recipe(folder_ / "keys.yaml");
  for (int i = 0; i < 70000; ++i) recipe << "k" << i << ": 1\n";
  recipe.close();
  const Outcome outcome = validate(path("keys.yaml"), 2);
  EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
  EXPECT_NE(outcome.output.find("k0: there is no such key"), std::string::npos)
      << outcome.output.substr(0, 500);
}

}  // namespace
}  // namespace conclave
