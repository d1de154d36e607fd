#include "framework/recipe/changes.h"

#include <map>
#include <utility>

namespace conclave {
namespace {

/// Every key with its value as YAML, in order.
class Flattener final : public PathVisitor {
 public:
  void key(const Key& key) override { values.emplace_back(path_of(key.name), value_text(key)); }
  std::vector<std::pair<std::string, std::string>> values;
};

std::vector<std::pair<std::string, std::string>> flat(const SectionReference& object) {
  Flattener flattener;
  object.show(flattener);
  return std::move(flattener.values);
}

}  // namespace

std::vector<KeyChange> changes_between(const SectionReference& before, const SectionReference& after) {
  const auto old_values = flat(before), new_values = flat(after);
  const std::map<std::string, std::string> old_by_key(old_values.begin(), old_values.end());
  const std::map<std::string, std::string> new_by_key(new_values.begin(), new_values.end());
  std::vector<KeyChange> changes;
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

std::string change_text(const KeyChange& change) {
  const auto shown = [](const std::string& value) { return value.empty() ? "none" : value; };
  return shown(change.before) + " -> " + shown(change.after);
}

}  // namespace conclave
