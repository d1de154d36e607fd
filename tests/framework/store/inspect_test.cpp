// `conclave inspect` from arguments to what it prints: a good checkpoint, a damaged one, wrong arguments.
#include "launch/tools/commands/inspect.h"

#include <gtest/gtest.h>

#include "framework/store/checkpoint_file.h"
#include "tests/framework/store/scratch_directory.h"

namespace conclave {
namespace {

void save(const std::filesystem::path& checkpoints, std::int64_t step) {
  CheckpointWriter writer(checkpoints, step);
  const std::vector<float> weights = {1, 2, 3, 4, 5, 6};
  writer.add("model/w", {2, 3}, weights.data());
  writer.commit();
}

std::string printed_by(const std::vector<std::string>& arguments, int exit_code) {
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(run_inspect(arguments), exit_code);
  return ::testing::internal::GetCapturedStdout();
}

TEST(Inspect, ListsTensorsAndNamesDamage) {
  const ScratchDirectory scratch;
  for (const std::int64_t step : {1, 2}) save(scratch.path(), step);
  expect_words(printed_by({scratch.path().string()}, 0),
               {"step-00000002", "w  float32 [2, 3]  24 bytes", "good: 1 tensor,"});
  flip_byte(scratch.path() / "step-00000002" / "index.h5", 1000);
  expect_words(printed_by({scratch.path().string()}, 3), {"step-00000001", "good: 1 tensor,"});
}

TEST(Inspect, OptionsAreReadAsByEveryCommand) {
  expect_words(printed_by({"--help"}, 0), {"usage: conclave inspect CHECKPOINT", "options:", "Examples:"});
  expect_words(sentence_of(Fault::request,
                           [] {
                             run_inspect({"--hepl", "x"});
                           }),
               {"there is no option '--hepl'; did you mean '--help'?"});
  expect_words(sentence_of(Fault::request, [] { run_inspect({}); }), {"no checkpoint came", "usage"});
  expect_words(sentence_of(Fault::request, [] { run_inspect({"x", "y"}); }), {"'y' came besides x"});
  expect_words(sentence_of(Fault::request, [] { run_inspect({"x", "a.b=1"}); }), {"no recipe to override"});
}

}  // namespace
}  // namespace conclave
