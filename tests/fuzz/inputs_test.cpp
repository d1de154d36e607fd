// Every input that is kept, seeds and what fuzzing once found, through the entries in the ordinary build.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/fuzz/entries.h"

namespace conclave::fuzz {
namespace {

std::vector<std::filesystem::path> inputs_of(const std::string& kind, const std::string& entry) {
  std::vector<std::filesystem::path> paths;
  const auto folder = std::filesystem::path(CONCLAVE_FUZZ_INPUTS) / kind / entry;
  if (std::filesystem::exists(folder))
    for (const auto& file : std::filesystem::directory_iterator(folder)) paths.push_back(file.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

class Inputs : public testing::TestWithParam<Entry> {
 public:
  static void run(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    EXPECT_NO_THROW(GetParam().run(bytes)) << path;
    // Half of it, as a copy that was cut short.
    EXPECT_NO_THROW(GetParam().run(std::string_view(bytes).substr(0, bytes.size() / 2)))
        << "half of " << path;
  }
};

TEST_P(Inputs, GiveAValueOrAnError) {
  const auto seeds = inputs_of("corpus", GetParam().name);
  EXPECT_FALSE(seeds.empty()) << "no seed in tests/fuzz/corpus/" << GetParam().name;
  for (const auto& path : seeds) run(path);
  for (const auto& path : inputs_of("findings", GetParam().name)) run(path);
  EXPECT_NO_THROW(GetParam().run(""));
}

INSTANTIATE_TEST_SUITE_P(AllEntries, Inputs, testing::ValuesIn(entries()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace conclave::fuzz
