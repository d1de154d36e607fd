// metrics.jsonl: exact numbers, whole lines, and what a resumed run keeps of the file that it finds.
#include "framework/telemetry/metrics.h"

#include <cmath>
#include <cstdlib>
#include <limits>

#include "framework/base/error.h"
#include "framework/base/random.h"
#include "tests/framework/telemetry/temporary.h"

namespace conclave {
namespace {

TEST(ToJson, WritesEveryKindOfValue) {
  EXPECT_EQ(to_json({{"step", std::int64_t{3}}, {"lm_loss", 0.1}, {"domain", std::string("a\"b\\\n")}}),
            R"({"step": 3, "lm_loss": 0.1, "domain": "a\"b\\\u000a"})");
  EXPECT_EQ(to_json({{"x", std::nan("")}, {"y", std::numeric_limits<double>::infinity()}}),
            R"({"x": null, "y": null})");
  EXPECT_EQ(to_json({}), "{}");
}

TEST(ToJson, KeepsEveryBitOfADouble) {
  const RandomKey random(1);
  for (std::uint64_t i = 0; i < 10000; ++i) {
    const double number =
        std::exp(700 * (2 * random.uniform(2 * i) - 1)) * (random.below(2 * i + 1, 2) ? 1 : -1);
    const std::string json = to_json({{"x", number}});
    ASSERT_EQ(std::strtod(json.c_str() + 6, nullptr), number) << json;
  }
}

TEST(StepOfLine, FindsTheStepWhereverItStands) {
  EXPECT_EQ(step_of_line(R"({"step": 12, "x": 1})"), 12);
  EXPECT_EQ(step_of_line(R"({"x":{"step":3},"step":4})"), 4);
  EXPECT_EQ(step_of_line(R"({"domain": "\"step\": 7", "step" : 8})"), 8);
  EXPECT_EQ(step_of_line(R"({"name": "step"})"), std::nullopt);
  EXPECT_EQ(step_of_line(R"({"step": null})"), std::nullopt);
  EXPECT_EQ(step_of_line("\"\\"), std::nullopt);
}

TEST(MetricsWriter, StartsAfreshWithoutAResumedStepAndWritesOverNothing) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("metrics.jsonl");
  std::ofstream(path).close();  // as a start leaves it that was killed before its first line
  {
    MetricsWriter writer(path);
    writer.write({{"step", std::int64_t{1}}});
    EXPECT_EQ(read_text(path), "{\"step\": 1}\n") << "a line must be in the file as soon as write() returns";
  }
  const auto refused = [](const std::string& name, std::optional<std::int64_t> step) {
    try {
      MetricsWriter writer(name, step);
      ADD_FAILURE() << name << " was opened";
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::request);
    }
  };
  refused(path, std::nullopt);
  EXPECT_EQ(read_text(path), "{\"step\": 1}\n");
  std::filesystem::create_symlink(path, directory.file("link.jsonl"));
  refused(directory.file("link.jsonl"), std::nullopt);
  refused(directory.file("link.jsonl"), 1);
  EXPECT_EQ(read_text(path), "{\"step\": 1}\n");
}

TEST(MetricsWriter, DropsLinesThatAResumedRunWritesAgain) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("metrics.jsonl");
  const std::string kept =
      "{\"note\": \"no step\"}\n{\"step\": 9}\n{\"step\": 10, \"split\": \"validation\"}\n";
  std::ofstream(path) << kept << "{\"step\": 11}\n{\"step\": 12}\n{\"step\": 1";
  MetricsWriter writer(path, 10);
  EXPECT_EQ(writer.dropped_lines(), 2);
  writer.write({{"step", std::int64_t{11}}});
  EXPECT_EQ(read_text(path), kept + "{\"step\": 11}\n");
  EXPECT_FALSE(std::filesystem::exists(path + ".new"));
}

TEST(MetricsWriter, ResumesWithoutAFile) {
  const TemporaryDirectory directory;
  MetricsWriter(directory.file("metrics.jsonl"), 10).write({{"step", std::int64_t{11}}});
  EXPECT_EQ(read_text(directory.file("metrics.jsonl")), "{\"step\": 11}\n");
}

TEST(MetricsWriter, SaysWhereItCannotWrite) {
  const TemporaryDirectory directory;
  try {
    MetricsWriter writer(directory.file("missing/metrics.jsonl"));
    FAIL() << "a file in a missing directory was opened";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::request);
    EXPECT_NE(std::string(error.what()).find("missing/metrics.jsonl"), std::string::npos);
  }
}

TEST(MetricsWriter, NoticesAFullDisk) {
  MetricsWriter writer("/dev/full");
  try {
    writer.write({{"step", std::int64_t{1}}});
    FAIL() << "a full disk went unnoticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::machine);
    EXPECT_NE(std::string(error.what()).find("No space"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace conclave
