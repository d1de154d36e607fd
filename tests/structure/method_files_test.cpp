// A method of the experts is one file. Counted here: the sources and the tests that name each method, by the
// words that stand below. A header and its .cpp are one source. A method may be named by its own file and by
// the list of methods, by one test, and by the files of a kernel that computes it.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>

#include "framework/base/error.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;
using Files = std::set<std::string>;

const std::string folder = "layers/moe/methods/";
/// The files that name all methods: makers, and the members of a recipe.
const std::set<std::string> lists = {"layers/moe/methods", "layers/moe/recipe"};

struct MethodWords {
  std::string file;    // in the folder of methods
  std::string words;   // by which it is named
  Files kernels = {};  // signature, check of arguments, work, CPU and device code; and rules over two owners
  std::string tests = {};  // words by which tests name its code; empty: `words`
};

const Files kernel_tables = {"framework/kernels/kernels", "framework/kernels/check_route"};

Files with_kernel(const std::string& family) {
  Files files = kernel_tables;
  files.insert("framework/kernels/cpu/" + family);
  files.insert("framework/kernels/cuda/" + family);
  return files;
}
Files with_work(Files files) {
  files.insert("framework/kernels/work");
  return files;
}

Files and_rule(Files files, const std::string& source) {
  files.insert(source);
  return files;
}

const std::vector<MethodWords>& all_methods() {
  static const std::vector<MethodWords> methods = {
      {"document_pools",
       "PoolRecipe|DocumentPools|document_pools|router\\.pool\\b|sum_over_documents|mask_outside_pools",
       // data.document_mask and pools have a rule together.
       and_rule(and_rule(with_work(with_kernel("pools")), "launch/train/recipe_rules"),
                folder + "vocabulary_mask"),
       "DocumentPools"},
      {"cosine_scores",
       "CosineScore|cosine_scores|least_temperature|router_temperature",
       {},
       "CosineScores,"},
      {"vocabulary_mask",
       "VocabularyMask|vocabulary_mask|router\\.vocabulary|frequent_tokens|close_by_token",
       {"framework/kernels/token_masks", "framework/kernels/cpu/token_masks",
        "framework/kernels/cuda/token_masks"},
       "VocabularyMask,"},
      {"capacity",
       "capacity_factor|\\bCapacity\\b|\\bcapacity\\(|expert_capacity",
       // A mask by token id leaves tokens with different numbers of experts, which a capacity cannot share
       // out.
       {folder + "vocabulary_mask"},
       "\\bCapacity\\("},
      {"selection_bias", "selection_bias|SelectionBias|router\\.bias", with_kernel("routing"),
       "move_selection_bias|add_load_signs"},
      {"z_loss", "\\bz_loss_coefficient|router_z_loss|\\bz_loss\\(|\\bZLoss", {}, "\\bZLoss"},
      {"routing_groups", "\\bn_group\\b|topk_group|routing_groups|chosen_groups",
       // Masks and groups exclude each other.
       and_rule(and_rule(with_kernel("routing"), folder + "document_pools"), folder + "vocabulary_mask"),
       "routing_groups"},
      {"sequence_scope", "sequence_scope|SequenceScope"},
      {"micro_batch_scope", "micro_batch_scope|MicroBatchScope", {}, "micro_batch_scope|MicroBatchScope"},
      {"group_scope", "group_scope|GroupScope|SequenceGroups", {}, "SequenceGroups"},
      {"data_parallel_scope",
       "data_parallel_scope|DataParallelScope",
       {},
       "data_parallel_scope|DataParallelScope"},
      {"shuffle_scope", "shuffle_scope|ShuffleScope|TokenSamples", {}, "TokenSamples"},
      {"global_batch_scope",
       "global_batch_scope|GlobalBatchScope|\"running\"|\"lagged\"",
       {},
       "global_batch_scope|GlobalBatchScope"},
  };
  return methods;
}

/// Tools that translate the recipes and tensors of other trainers, or say what becomes of a method in a
/// smaller model; and examples of overrides in their help.
bool speaks_of_recipes(const std::string& source) {
  return source.starts_with("launch/tools/");
}

/// Files below these folders that have one of the words, without their endings.
Files files_with(const fs::path& root, const std::vector<std::string>& folders, const std::string& words) {
  static const Files endings = {".h", ".cpp", ".cu", ".cuh"};
  const std::regex pattern(words);
  Files found;
  for (const std::string& top : folders) {
    if (!fs::is_directory(root / top)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      if (!entry.is_regular_file() || !endings.contains(entry.path().extension().string())) continue;
      std::ifstream file(entry.path());
      const std::string text{std::istreambuf_iterator<char>(file), {}};
      if (!std::regex_search(text, pattern)) continue;
      fs::path name = entry.path().lexically_relative(root);
      found.insert(name.replace_extension().string());
    }
  }
  return found;
}

/// Sentences about each file that names the method and should not.
std::vector<std::string> complaints(const fs::path& root, const MethodWords& method) {
  std::vector<std::string> found;
  const std::vector<std::string> code = {"framework", "parallel", "layers", "optim", "launch"};
  for (const std::string& source : files_with(root, code, method.words))
    if (source != folder + method.file && !lists.contains(source) && !method.kernels.contains(source) &&
        !speaks_of_recipes(source))
      found.push_back(source + " names the method " + method.file);
  Files tests = files_with(root, {"tests/layers", "tests/launch", "tests/parallel", "tests/optim"},
                           method.tests.empty() ? method.words : method.tests);
  if (tests.size() > 1)
    for (const std::string& test : tests)
      found.push_back(test + " is one of several tests that name the code of " + method.file);
  return found;
}

TEST(MethodFiles, EachMethodIsNamedByItsOwnFileTheListItsKernelAndOneTest) {
  for (const MethodWords& method : all_methods()) {
    const fs::path own = fs::path(CONCLAVE_SOURCE_DIRECTORY) / (folder + method.file + ".cpp");
    EXPECT_TRUE(fs::is_regular_file(own)) << own;
    for (const std::string& complaint : complaints(CONCLAVE_SOURCE_DIRECTORY, method))
      ADD_FAILURE() << complaint;
  }
}

TEST(MethodFiles, EveryMethodOfTheFolderIsCounted) {
  Files counted = {"balance_terms"};  // what the scopes have in common
  for (const MethodWords& method : all_methods()) counted.insert(method.file);
  for (const auto& entry : fs::directory_iterator(fs::path(CONCLAVE_SOURCE_DIRECTORY) / folder))
    EXPECT_TRUE(counted.contains(entry.path().stem().string())) << entry.path();
}

TEST(MethodFiles, AnotherFileThatNamesOneIsSeen) {
  std::string name = (fs::temp_directory_path() / "conclave_methods_XXXXXX").string();
  check(mkdtemp(name.data()) != nullptr, Fault::machine, "Cannot make a scratch directory like ", name);
  const fs::path root = name;
  const auto write = [&](const std::string& path, const std::string& text) {
    fs::create_directories((root / path).parent_path());
    std::ofstream(root / path) << text << "\n";
  };
  const auto count = [&] {
    std::size_t all = 0;
    for (const MethodWords& method : all_methods()) all += complaints(root, method).size();
    return all;
  };
  write("layers/moe/methods/capacity.cpp", "expert_capacity(");
  write("layers/moe/methods.cpp", "Method capacity();");
  write("tests/layers/moe/methods/capacity_test.cpp", "Capacity(1.0)");
  EXPECT_EQ(count(), 0u);
  write("launch/train/trainer.cpp", "if (recipe.model.moe.capacity_factor > 0)");
  EXPECT_EQ(count(), 1u);
  write("layers/moe/router.h", "rule.chosen_groups = 2;");
  EXPECT_EQ(count(), 2u);
  write("tests/layers/transformer_test.cpp", "Capacity(2.0)");
  EXPECT_EQ(count(), 4u);
  fs::remove_all(root);
}

}  // namespace
}  // namespace conclave
