#include "framework/recipe/schema.h"

#include <algorithm>
#include <set>

#include "framework/recipe/nearest.h"

namespace conclave {
namespace {

/// data.train.17 -> data.train.0
std::string any_element(const std::string& path) {
  std::string result, part;
  const auto finish_part = [&] {
    const bool index = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    result += index ? "0" : part;
    part.clear();
  };
  for (const char c : path) {
    if (c == '.') {
      finish_part();
      result += '.';
    } else {
      part += c;
    }
  }
  finish_part();
  return result;
}

struct DividedPath {
  std::string section, name;
};
DividedPath divided(const std::string& path) {
  const std::size_t dot = path.rfind('.');
  if (dot == std::string::npos) return {"", path};
  return {path.substr(0, dot), path.substr(dot + 1)};
}

}  // namespace

class Schema::Collector final : public PathVisitor {
 public:
  explicit Collector(std::vector<Entry>& entries) : entries_(entries) {}

  void key(const Key& key) override {
    Entry entry{.section = path(), .name = key.name, .is_key = true, .words = valid_words(key)};
    if (std::holds_alternative<std::vector<std::string>*>(key.value))
      entry.words_of_elements = key.rule.words;
    entry.facts = key.facts;
    add(std::move(entry));
  }
  void section(const char* name, const char*, const std::function<void()>& inside) override {
    add({.section = path(), .name = name, .is_section = true});
    within(name, inside);
  }
  void list(const char* name, const char*, ListReference& list) override {
    add({.section = path(), .name = name, .is_list = true});
    within(std::string(name) + ".0", [&] { list.describe_default(*this); });
  }
  void choice(const char* name, const char*, ChoiceReference& choice) override {
    bool any_keys = false;
    for (std::size_t kind = 0; kind < choice.kinds().size(); ++kind) any_keys |= has_keys(choice, kind);
    add({.section = path(), .name = name, .is_key = true, .is_section = any_keys, .words = choice.kinds()});
    within(name, [&] {
      add({.section = path(), .name = kind_of_choice, .is_key = true, .words = choice.kinds()});
      for (std::size_t kind = 0; kind < choice.kinds().size(); ++kind) choice.describe_default(kind, *this);
    });
  }

  void scheduled(const Key& number, ScheduleReference& schedule) override {
    key(number);
    entries_.back().is_section = true;
    within(number.name, [&] { schedule.describe_course(*this); });
  }

 private:
  /// Alternatives of a choice may share keys.
  void add(Entry entry) {
    const bool known = std::any_of(entries_.begin(), entries_.end(), [&](const Entry& other) {
      return other.section == entry.section && other.name == entry.name;
    });
    if (!known) entries_.push_back(std::move(entry));
  }

  std::vector<Entry>& entries_;
};

Schema::Schema(const SectionReference& defaults, std::string example) : example_(std::move(example)) {
  Collector collector(entries_);
  defaults.show(collector);
}

const Schema::Entry* Schema::find(const std::string& path) const {
  const DividedPath wanted = divided(any_element(path));
  for (const Entry& entry : entries_)
    if (entry.section == wanted.section && entry.name == wanted.name) return &entry;
  return nullptr;
}

bool Schema::is_key(const std::string& section, const std::string& name) const {
  const std::string wanted = any_element(section);
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const Entry& entry) { return entry.section == wanted && entry.name == name; });
}

bool Schema::is_key(const std::string& path) const {
  const auto [section, name] = divided(path);
  return is_key(section, name);
}

std::vector<std::string> Schema::keys_in(const std::string& section) const {
  const std::string wanted = any_element(section);
  std::vector<std::string> paths;
  for (const Entry& entry : entries_)
    if (entry.section == wanted) paths.push_back(join_path(section, entry.name));
  return paths;
}

bool Schema::is_list(const std::string& path) const {
  const Entry* entry = find(path);
  return entry != nullptr && entry->is_list;
}

std::string Schema::suggestion(const std::string& section, const std::string& name) const {
  const std::string wanted = any_element(section);
  for (const Entry& entry : entries_)
    for (const std::string& other : entry.facts.other_names)
      if (name == other) return "; did you mean " + join_path(entry.section, entry.name) + "?";
  std::vector<std::string> here, everywhere;
  for (const Entry& entry : entries_) {
    everywhere.push_back(entry.name);
    if (entry.section == wanted) here.push_back(entry.name);
  }
  // A key that has exactly this name elsewhere was put in the wrong section; else a slip of the pen is
  // likelier.
  const bool misplaced = std::find(everywhere.begin(), everywhere.end(), name) != everywhere.end();
  const std::string near_here = misplaced ? "" : nearest(name, here);
  if (!near_here.empty()) return "; did you mean " + join_path(section, near_here) + "?";
  const std::string near = misplaced ? name : nearest(name, everywhere);
  std::string meant;
  for (const Entry& entry : entries_)
    if (!near.empty() && entry.name == near)
      meant += (meant.empty() ? "" : " or ") + join_path(entry.section, entry.name);
  if (!meant.empty()) return "; did you mean " + meant + "?";
  return "; the keys of " + (section.empty() ? "a recipe" : section) + " are " + join_words(here);
}

std::string Schema::suggestion(const std::string& path) const {
  const auto [section, name] = divided(path);
  return suggestion(section, name);
}

std::vector<std::string> Schema::completions(const std::string& begun) const {
  const std::size_t equals = begun.find('=');
  const auto [section, name] = divided(begun.substr(0, equals));
  const std::string wanted = any_element(section);
  std::vector<std::string> offers;
  for (const Entry& entry : entries_) {
    if (entry.section != wanted) continue;
    const std::string whole = join_path(section, entry.name);
    if (equals == std::string::npos) {
      if (!entry.name.starts_with(name)) continue;
      if (entry.is_section) offers.push_back(whole + ".");
      if (entry.is_key || entry.is_list) offers.push_back(whole + "=");
    } else if (entry.name == name) {
      for (const std::string& word : entry.words)
        if (word.starts_with(begun.substr(equals + 1))) offers.push_back(whole + "=" + word);
    }
  }
  return offers;
}

Saved Schema::meaning_given_by(const std::string& path) const {
  const Entry* entry = find(path);
  return entry == nullptr ? Saved::nothing : entry->facts.gives_meaning_to;
}

std::vector<std::string> Schema::keys_that_give_meaning_to(Saved saved) const {
  std::vector<std::string> keys;
  for (const Entry& entry : entries_)
    if (entry.facts.gives_meaning_to == saved) keys.push_back(join_path(entry.section, entry.name));
  return keys;
}

std::vector<std::string> Schema::vocabulary() const {
  std::set<std::string> words;
  for (const Entry& entry : entries_) {
    words.insert(entry.name);
    words.insert(entry.words.begin(), entry.words.end());
    words.insert(entry.words_of_elements.begin(), entry.words_of_elements.end());
  }
  return {words.begin(), words.end()};
}

}  // namespace conclave
