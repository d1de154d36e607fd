// The house stands in order, and the checker that says so notices when it does not.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "framework/base/error.h"
#include "tests/structure/include_order.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

TEST(IncludeOrder, TheHouseStandsInOrder) {
  const IncludeReport report = check_include_order(CONCLAVE_SOURCE_DIRECTORY);
  EXPECT_GT(report.files, 20);
  EXPECT_GT(report.includes, 20);
  for (const std::string& violation : report.violations) ADD_FAILURE() << violation;
}

class PlantedInclude : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "conclave_structure_XXXXXX").string();
    check(mkdtemp(name.data()) != nullptr, Fault::machine, "Cannot make a scratch directory like ", name);
    root_ = name;
  }
  void TearDown() override { fs::remove_all(root_); }

  /// The violations of a house that holds one file with one include.
  std::vector<std::string> violations(const std::string& file, const std::string& line) {
    const fs::path path = root_ / file;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << "// a comment\n" << line << "\n";
    const IncludeReport report = check_include_order(root_);
    EXPECT_EQ(report.files, 1);
    fs::remove(path);
    return report.violations;
  }

  fs::path root_;
};

TEST_F(PlantedInclude, UpwardsOrSidewaysIsFound) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"framework/base/a.h", "framework/device/device.h"},
      {"framework/tensor/a.h", "framework/kernels/kernels.h"},
      {"framework/store/a.cpp", "framework/tensor/tensor.h"},
      {"framework/recipe/deep/a.cpp", "framework/data/batch.h"},
      {"framework/recipe/a.cpp", "layers/moe/recipe.h"},
      {"framework/recipe/a.h", "launch/train/recipe.h"},
      {"framework/autograd/a.cpp", "parallel/communicator.h"},
      {"parallel/a.cpp", "layers/linear.h"},
      {"layers/a.h", "optim/adamw.h"},
      {"layers/a.h", "layers/moe/router.h"},
      {"layers/moe/methods/a.h", "optim/adamw.h"},
      {"optim/a.h", "layers/linear.h"},
      {"layers/a.cpp", "launch/train/trainer.h"},
      {"launch/train/a.cpp", "launch/plan/model_costs.h"},
      {"launch/train/a.cpp", "launch/train/run/saves.h"},
      {"launch/plan/a.cpp", "launch/train/run/saves.h"},
      {"launch/plan/a.cpp", "launch/tools/report/page.h"},
      {"launch/tools/bench/a.cpp", "launch/tools/convert/import.h"},
      {"launch/tools/commands/a.cpp", "tests/helper.h"},
      {"layers/a.cpp", "linear.h"},
      {"layers/a.cpp", "../optim/adamw.h"},
  };
  for (const auto& [file, included] : wrong) {
    const std::vector<std::string> found = violations(file, "  #  include \"" + included + "\"");
    ASSERT_EQ(found.size(), 1u) << file << " includes " << included;
    EXPECT_EQ(found[0].find(file + ":2: "), 0u) << found[0];
    EXPECT_NE(found[0].find(included), std::string::npos) << found[0];
  }
  EXPECT_EQ(violations("framework/novelty/a.h", "").size(), 1u);
}

TEST_F(PlantedInclude, DownwardsIsFine) {
  EXPECT_TRUE(violations("launch/train/a.cpp", "#include \"optim/adamw.h\"").empty());
  EXPECT_TRUE(violations("launch/train/run/a.cpp", "#include \"launch/train/trainer.h\"").empty());
  EXPECT_TRUE(violations("layers/a.cpp", "#include \"layers/linear.h\"").empty());
  EXPECT_TRUE(violations("layers/a.cpp", "#include \"parallel/mesh.h\"").empty());
  EXPECT_TRUE(violations("layers/moe/methods/a.cpp", "#include \"layers/linear.h\"").empty());
  EXPECT_TRUE(violations("tests/layers/a.cpp", "#include \"layers/linear.h\"").empty());
  EXPECT_TRUE(violations("optim/a.cpp", "#include \"framework/recipe/visitor.h\"").empty());
  EXPECT_TRUE(violations("framework/base/a.cpp", "#include <vector>").empty());
}

TEST_F(PlantedInclude, AlgorithmsComeFromTheirOwnHeader) {
  const std::string use = join_text("int a = std", "::count(b.begin(), b.end(), 1);");
  EXPECT_EQ(violations("optim/a.cpp", use),
            std::vector<std::string>{"optim/a.cpp:2: uses <algorithm>, but does not include it"});
  EXPECT_TRUE(violations("optim/a.cpp", "#include <algorithm>\n" + use).empty());
  EXPECT_TRUE(violations("optim/a.cpp", "std::count_of(1); std::max<int> a; std::sorted(b);").empty());
}

}  // namespace
}  // namespace conclave
