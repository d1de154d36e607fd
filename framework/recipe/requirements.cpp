#include "framework/recipe/requirements.h"

namespace conclave {
namespace {

class RuleChecker final : public PathVisitor {
 public:
  explicit RuleChecker(const Requirements& requirements) : requirements_(requirements) {}
  void key(const Key& key) override {
    const std::string wrong = complaint(key), path = path_of(key.name);
    auto* const* text = std::get_if<std::string*>(&key.value);
    const bool missing = text != nullptr && (*text)->empty() && !requirements_.was_written(path);
    requirements_.require(wrong.empty(), path, missing ? "this key is missing; a text is expected" : wrong);
  }

 private:
  const Requirements& requirements_;
};

}  // namespace

void Requirements::require_rules(const SectionReference& object) const {
  RuleChecker checker(*this);
  object.show(checker);
}

std::string Requirements::place(std::string key) const {
  while (true) {
    if (was_written(key)) return places_.of(key);
    const std::size_t dot = key.rfind('.');
    if (dot == std::string::npos) return "";
    key.resize(dot);
  }
}

std::string nearest_multiples(std::int64_t number, std::int64_t unit) {
  const std::int64_t below = number / unit * unit;
  return (below > 0 ? std::to_string(below) + " and " : "") + std::to_string(below + unit);
}

}  // namespace conclave
