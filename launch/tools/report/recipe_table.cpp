#include "launch/tools/report/recipe_table.h"

#include <algorithm>
#include <map>

#include "framework/recipe/key.h"
#include "framework/recipe/yaml_tree.h"

namespace conclave {
namespace {

using Keys = std::vector<std::pair<std::string, std::string>>;

bool is_scalar(const YamlNode& node) {
  return node.kind == YamlNode::Kind::scalar || node.kind == YamlNode::Kind::null;
}

void flatten(const YamlNode& node, const std::string& path, Keys& keys) {
  if (is_scalar(node)) {
    keys.emplace_back(path, node.text);
  } else if (node.kind == YamlNode::Kind::map) {
    for (const YamlEntry& entry : node.entries) flatten(*entry.value, join_path(path, entry.key), keys);
  } else if (std::all_of(node.items.begin(), node.items.end(),
                         [](const auto& item) { return is_scalar(*item); })) {
    std::string values;
    for (const auto& item : node.items) values += (values.empty() ? "" : ", ") + item->text;
    keys.emplace_back(path, "[" + values + "]");
  } else {
    for (std::size_t i = 0; i < node.items.size(); ++i)
      flatten(*node.items[i], join_path(path, std::to_string(i)), keys);
  }
}

}  // namespace

Keys flat_keys(const std::string& yaml, const std::string& source) {
  Keys keys;
  flatten(*parse_yaml(yaml, source), "", keys);
  return keys;
}

std::vector<KeyDifference> recipe_differences(const std::vector<Keys>& recipes) {
  std::vector<KeyDifference> table;
  std::map<std::string, std::size_t> row_of;
  for (std::size_t i = 0; i < recipes.size(); ++i)
    for (const auto& [key, value] : recipes[i]) {
      if (key == "name" || key == "output") continue;
      const auto [at, is_new] = row_of.try_emplace(key, table.size());
      if (is_new) table.push_back({key, std::vector<std::string>(recipes.size())});
      table[at->second].values[i] = value;
    }
  std::erase_if(table, [](const KeyDifference& row) {
    return std::all_of(row.values.begin(), row.values.end(),
                       [&](const std::string& value) { return value == row.values[0]; });
  });
  return table;
}

}  // namespace conclave
