#include "launch/train/recipe_text.h"

#include <algorithm>

#include "framework/base/error.h"
#include "framework/recipe/override.h"
#include "framework/recipe/read.h"
#include "framework/recipe/write.h"
#include "framework/recipe/yaml_tree.h"

namespace conclave {
namespace {

ReadTarget target_of(Recipe& recipe) {
  return {SectionReference(recipe), recipe_schema(), recipe.places};
}

}  // namespace

const Schema& recipe_schema() {
  static const Schema schema = [] {
    Recipe defaults;
    return Schema(SectionReference(defaults), "training.steps=100");
  }();
  return schema;
}

Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  const std::string text = read_recipe_file(path);
  check(parse_yaml(text, path)->kind != YamlNode::Kind::null, Fault::request, "recipe '", path,
        "' is empty; expected keys such as model, data and training (examples/quickstart.yaml has all it "
        "needs)");
  return parse_recipe(text, path, overrides);
}

Recipe parse_recipe(const std::string& text, const std::string& source,
                    const std::vector<std::string>& overrides) {
  Recipe recipe;
  read_text(target_of(recipe), text, source);
  for (const std::string& override_text : overrides) apply_override(recipe, override_text);
  return recipe;
}

void apply_override(Recipe& recipe, const std::string& override_text) {
  apply_override(target_of(recipe), override_text);
}

// Visitors may write; those below do not, and see a copy.

std::string to_yaml(const Recipe& recipe) {
  Recipe copy = recipe;
  return to_yaml(SectionReference(copy));
}

std::string to_annotated_yaml(const Recipe& recipe) {
  Recipe copy = recipe, defaults;
  return to_annotated_yaml(SectionReference(copy), SectionReference(defaults));
}

std::string key_text(const Recipe& recipe, const std::string& path) {
  Recipe copy = recipe;
  return key_text(SectionReference(copy), recipe_schema(), path);
}

std::vector<KeyChange> changes_between(const Recipe& before, const Recipe& after) {
  Recipe old_copy = before, new_copy = after;
  return changes_between(SectionReference(old_copy), SectionReference(new_copy));
}

bool gives_weights_their_meaning(const std::string& key) {
  return recipe_schema().meaning_given_by(key) == Saved::weights;
}

bool gives_counts_their_meaning(const std::string& key) {
  return recipe_schema().meaning_given_by(key) == Saved::counts;
}

bool accepts_change(const Recipe& recipe, const std::string& key) {
  const std::vector<std::string>& names = recipe.checkpoint.accept_changes;
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return key == name || (key.starts_with(name) && key[name.size()] == '.');
  });
}

}  // namespace conclave
