#include "framework/recipe/changes.h"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>
#include <utility>

#include "framework/recipe/schema.h"

namespace conclave {
namespace {

/// Names, shapes and types are compared by who reads the tensors; these can change without changing one.
constexpr std::array weight_keys = {"model.num_attention_heads",
                                    "model.num_key_value_heads",
                                    "model.head_dim",
                                    "model.rope_theta",
                                    "model.partial_rotary_factor",
                                    "model.rms_norm_eps",
                                    "model.qk_norm_over",
                                    "model.moe.num_experts_per_tok",
                                    "model.moe.capacity_factor",
                                    "model.moe.router.kind",
                                    "model.moe.router.norm_topk_prob",
                                    "model.moe.router.routed_scaling_factor",
                                    "model.moe.router.n_group",
                                    "model.moe.router.topk_group",
                                    "model.moe.router.pool.minimum",
                                    "model.moe.router.pool.maximum",
                                    "model.moe.router.pool.evaluation",
                                    "data.tokenizer"};
constexpr std::array count_keys = {"data.sequence_length", "data.document_mask", "training.seed"};

/// Every key with its value as YAML, in order.
class Flattener final : public Visitor {
 public:
  void key(const Key& key) override { values.emplace_back(join_path(path_, key.name), value_text(key)); }
  void section(const char* name, const char*, const std::function<void()>& inside) override {
    within(name, inside);
  }
  void list(const char* name, const char*, ListReference& list) override {
    for (std::size_t index = 0; index < list.size(); ++index)
      within(join_path(name, std::to_string(index)), [&] { list.describe_element(index, *this); });
  }

  std::vector<std::pair<std::string, std::string>> values;

 private:
  void within(const std::string& name, const std::function<void()>& inside) {
    const std::string outer = path_;
    path_ = join_path(path_, name);
    inside();
    path_ = outer;
  }
  std::string path_;
};

std::vector<std::pair<std::string, std::string>> flat(Recipe recipe) {
  Flattener flattener;
  describe(flattener, recipe);
  return std::move(flattener.values);
}

template <class Keys>
bool is_one_of(const Keys& keys, const std::string& key) {
  return std::find(keys.begin(), keys.end(), std::string_view(key)) != keys.end();
}

}  // namespace

std::vector<RecipeChange> changes_between(const Recipe& before, const Recipe& after) {
  const auto old_values = flat(before), new_values = flat(after);
  const std::map<std::string, std::string> old_by_key(old_values.begin(), old_values.end());
  const std::map<std::string, std::string> new_by_key(new_values.begin(), new_values.end());
  std::vector<RecipeChange> changes;
  for (const auto& [key, value] : new_values) {
    const auto found = old_by_key.find(key);
    if (found == old_by_key.end())
      changes.push_back({key, "", value});
    else if (found->second != value)
      changes.push_back({key, found->second, value});
  }
  for (const auto& [key, value] : old_values)
    if (!new_by_key.contains(key)) changes.push_back({key, value, ""});
  return changes;
}

std::string change_text(const RecipeChange& change) {
  const auto shown = [](const std::string& value) { return value.empty() ? "none" : value; };
  return shown(change.before) + " -> " + shown(change.after);
}

bool gives_weights_their_meaning(const std::string& key) {
  return is_one_of(weight_keys, key);
}

bool gives_counts_their_meaning(const std::string& key) {
  return is_one_of(count_keys, key);
}

std::vector<std::string> keys_with_a_meaning() {
  std::vector<std::string> keys(weight_keys.begin(), weight_keys.end());
  keys.insert(keys.end(), count_keys.begin(), count_keys.end());
  return keys;
}

bool accepts_change(const Recipe& recipe, const std::string& key) {
  const std::vector<std::string>& names = recipe.checkpoint.accept_changes;
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return key == name || (key.starts_with(name) && key[name.size()] == '.');
  });
}

}  // namespace conclave
