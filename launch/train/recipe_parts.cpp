#include "launch/train/recipe_parts.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <system_error>

#include "framework/store/checkpoint_directory.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

/// RUN/recipes/step-00000100.yaml
fs::path part_path(const fs::path& recipes, std::int64_t step) {
  return checkpoint_path(recipes, step) += ".yaml";
}

/// Where each part begins.
std::map<std::int64_t, fs::path> parts_of(const fs::path& recipes) {
  std::map<std::int64_t, fs::path> parts;
  for (const fs::path& path : entries_of(recipes)) {
    const std::string name = path.filename().string();
    const std::int64_t step = name.starts_with("step-") ? std::atoll(name.c_str() + 5) : -1;
    if (step >= 0 && path == part_path(recipes, step)) parts[step] = path;
  }
  return parts;
}

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

void keep_recipe(const fs::path& run, const std::string& recipe, std::optional<std::int64_t> resumed_step,
                 const std::string& resumed_recipe) {
  const fs::path recipes = run / "recipes";
  make_directories(recipes);
  const std::int64_t begin = resumed_step.value_or(0);
  std::string before;
  for (const auto& [step, path] : parts_of(recipes)) {
    if (step < begin) {
      before = text_of(path);
      continue;
    }
    std::error_code code;
    fs::remove(path, code);
    check(!code, Fault::machine, "Cannot remove ", path.string(),
          ", the recipe of steps that come again: ", code.message(),
          ". Check the permissions of its directory.");
  }
  if (begin > 0 && before.empty()) {
    before = resumed_recipe;
    write_text_durably(part_path(recipes, 0), before);
  }
  if (before != recipe) write_text_durably(part_path(recipes, begin), recipe);
  write_text_durably(run / "recipe.yaml", recipe);
}

bool has_recipe_parts(const fs::path& run) {
  return !parts_of(run / "recipes").empty();
}

}  // namespace conclave
