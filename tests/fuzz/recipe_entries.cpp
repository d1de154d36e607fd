// Recipes and overrides. A recipe that is accepted must also survive being checked, written and read
// again, because `conclave validate` does all of that with whatever sizes came.
#include <sstream>

#include "framework/recipe/override.h"
#include "launch/train/recipe_rules.h"
#include "launch/train/recipe_text.h"
#include "tests/fuzz/entries.h"

namespace conclave::fuzz {
namespace {

constexpr const char* valid_recipe =
    "model: {vocab_size: 512, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, "
    "num_key_value_heads: 2, head_dim: 16, moe: {num_experts: 8, num_experts_per_tok: 2, "
    "moe_intermediate_size: 32}}\n"
    "data: {sequence_length: 64, train: [{path: a, domain: b}], validation: [{path: c, domain: d}]}\n"
    "training: {global_batch_size: 256, micro_batch_size: 1, steps: 10}\n";

void use(const Recipe& recipe) {
  const std::string text = to_yaml(recipe);
  promise(to_yaml(parse_recipe(text, "written")) == text, "a written recipe reads back to the same recipe");
  promise(to_yaml(parse_recipe(to_annotated_yaml(recipe), "annotated")) == text,
          "an annotated recipe reads back to the same recipe");
  for (const int ranks : {1, 8, 256}) {
    value_or_error([&] {
      validate_recipe(recipe, ranks);
      warnings(recipe);
    });
  }
}

}  // namespace

void run_recipe(std::string_view bytes) {
  value_or_error([&] { use(parse_recipe(std::string(bytes), "recipe.yaml")); });
}

void run_overrides(std::string_view bytes) {
  value_or_error([&] {
    Recipe recipe = parse_recipe(valid_recipe, "valid");
    std::istringstream lines{std::string(bytes)};
    for (std::string line; std::getline(lines, line);) {
      is_override(line);
      apply_override(recipe, line);
    }
    use(recipe);
  });
}

}  // namespace conclave::fuzz
