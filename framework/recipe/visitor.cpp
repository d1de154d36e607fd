#include "framework/recipe/visitor.h"

#include "framework/recipe/nearest.h"

namespace conclave {
namespace {

class Counter final : public Visitor {
 public:
  void key(const Key&) override { ++seen; }
  void section(const char*, const char*, const std::function<void()>&) override { ++seen; }
  void list(const char*, const char*, ListReference&) override { ++seen; }
  void choice(const char*, const char*, ChoiceReference&) override { ++seen; }
  int seen = 0;
};

}  // namespace

bool has_keys(ChoiceReference& choice, std::size_t kind) {
  Counter counter;
  choice.describe_default(kind, counter);
  return counter.seen > 0;
}

void Visitor::choice(const char* name, const char* meaning, ChoiceReference& choice) {
  std::string kind = choice.kinds()[choice.chosen()];
  const Rule rule = one_of(choice.kinds());
  if (!has_keys(choice, choice.chosen())) return key({name, &kind, meaning, rule});
  section(name, meaning, [&] {
    const std::string kinds = "which one: " + join_words(choice.kinds());
    key({kind_of_choice, &kind, kinds.c_str(), rule});
    choice.describe_chosen(*this);
  });
}

void Visitor::scheduled(const Key& number, ScheduleReference& schedule) {
  if (!schedule.moves()) return key(number);
  section(number.name, number.meaning, [&] { schedule.describe_course(*this); });
}

void PathVisitor::section(const char* name, const char*, const std::function<void()>& inside) {
  within(name, inside);
}

void PathVisitor::list(const char* name, const char*, ListReference& list) {
  for (std::size_t index = 0; index < list.size(); ++index)
    within(join_path(name, std::to_string(index)), [&] { list.describe_element(index, *this); });
}

void PathVisitor::within(const std::string& name, const std::function<void()>& inside) {
  const std::string outer = path_;
  path_ = path_of(name);
  inside();
  path_ = outer;
}

}  // namespace conclave
