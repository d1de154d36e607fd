// framework/recipe is machinery: it names no key of a recipe. Only keys and words that the machinery itself
// gives to choices and to numbers that move may stand there.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "framework/recipe/scheduled.h"
#include "launch/train/recipe_text.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

class Names final : public Visitor {
 public:
  void key(const Key& key) override {
    all.insert(key.name);
    for (const std::string& word : valid_words(key)) words.insert(word);
  }
  void section(const char* name, const char*, const std::function<void()>& inside) override {
    all.insert(name);
    inside();
  }
  void list(const char* name, const char*, ListReference& list) override {
    all.insert(name);
    list.describe_default(*this);
  }
  std::set<std::string> all, words;
};

std::set<std::string> names_of_the_machinery() {
  Names names;
  Scheduled<double> number;
  ScheduledReference<double>(number, {}).describe_course(names);
  names.all.insert(kind_of_choice);
  names.all.merge(names.words);
  return names.all;
}

/// "file.cpp: name" of each text in quotes, comments aside, that is the name of a key.
std::vector<std::string> named_keys(const fs::path& file, const std::set<std::string>& keys) {
  std::vector<std::string> found;
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    line = line.substr(0, line.find("//"));
    for (const std::string& key : keys)
      if (line.find('"' + key + '"') != std::string::npos)
        found.push_back(file.filename().string() + ": " + key);
  }
  return found;
}

TEST(RecipeMachinery, NamesNoKeyOfARecipe) {
  Names recipe_names;
  Recipe recipe;
  describe(recipe_names, recipe);
  std::set<std::string> keys = recipe_names.all;
  ASSERT_GT(keys.size(), 90u);
  for (const std::string& own : names_of_the_machinery()) keys.erase(own);
  int files = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(CONCLAVE_SOURCE_FOLDER) / "framework/recipe")) {
    ++files;
    for (const std::string& found : named_keys(entry.path(), keys)) ADD_FAILURE() << found;
  }
  EXPECT_GT(files, 15);
  // The same search finds the keys where they stand.
  const fs::path owner = fs::path(CONCLAVE_SOURCE_FOLDER) / "layers/moe/recipe.cpp";
  EXPECT_GT(named_keys(owner, keys).size(), 15u);
}

TEST(RecipeMachinery, EveryKeyAndEveryWordIsInTheVocabulary) {
  const std::vector<std::string> words = recipe_schema().vocabulary();
  const std::set<std::string> all(words.begin(), words.end());
  Names names;
  Recipe recipe;
  describe(names, recipe);
  for (const std::string& name : names.all) EXPECT_TRUE(all.contains(name)) << name;
  for (const char* word : {"global_batch", "lagged", "bf16", "emulated", "adamw", "size", "true", "all_heads",
                           "data_position", "wsd", "all_gather", "block"})
    EXPECT_TRUE(all.contains(word)) << word;
}

}  // namespace
}  // namespace conclave
