#include "framework/recipe/write.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "framework/base/error.h"
#include "framework/recipe/nearest.h"

namespace conclave {
namespace {

/// The keys of an alternative have defaults of their own.
std::string alternative(const std::string& name, const std::string& kind) {
  return name + "(" + kind + ")";
}

/// The default of every key by its path; in lists the default of an element's key, under the index "*".
class DefaultCollector final : public PathVisitor {
 public:
  void key(const Key& key) override { defaults[path_of(key.name)] = value_text(key); }
  void list(const char* name, const char*, ListReference& list) override {
    within(std::string(name) + ".*", [&] { list.describe_default(*this); });
  }
  void choice(const char* name, const char*, ChoiceReference& choice) override {
    const std::string kind = quoted_text(choice.kinds()[choice.chosen()]);
    defaults[path_of(name)] = kind;
    for (std::size_t i = 0; i < choice.kinds().size(); ++i)
      within(alternative(name, choice.kinds()[i]), [&] {
        defaults[path_of(kind_of_choice)] = kind;
        choice.describe_default(i, *this);
      });
  }
  void scheduled(const Key& number, ScheduleReference& schedule) override {
    key(number);
    within(number.name, [&] { schedule.describe_course(*this); });
  }

  std::map<std::string, std::string> defaults;
};

class Writer final : public PathVisitor {
 public:
  Writer() = default;
  explicit Writer(const SectionReference& defaults) : annotated_(true) {
    DefaultCollector collector;
    defaults.show(collector);
    defaults_ = std::move(collector.defaults);
  }

  void key(const Key& key) override {
    std::string comment = key.meaning;
    const std::string& usual = defaults_[path_of(key.name)];
    if (usual != "\"\"") comment += " [" + usual + "]";
    line(std::string(key.name) + ": " + value_text(key), comment);
  }

  void section(const char* name, const char* meaning, const std::function<void()>& inside) override {
    line(std::string(name) + ":", meaning);
    indented(name, 2, inside);
  }

  void choice(const char* name, const char* meaning, ChoiceReference& choice) override {
    if (!has_keys(choice, choice.chosen())) return PathVisitor::choice(name, meaning, choice);
    line(std::string(name) + ":", meaning);
    indented(alternative(name, choice.kinds()[choice.chosen()]), 2, [&] {
      std::string kind = choice.kinds()[choice.chosen()];
      const std::string kinds = "which one: " + join_words(choice.kinds());
      key({kind_of_choice, &kind, kinds.c_str()});
      choice.describe_chosen(*this);
    });
  }

  void list(const char* name, const char* meaning, ListReference& list) override {
    line(std::string(name) + (list.size() ? ":" : ": []"), meaning);
    indented(std::string(name) + ".*", 4, [&] {
      for (std::size_t index = 0; index < list.size(); ++index) {
        dash_ = true;
        list.describe_element(index, *this);
      }
      if (list.size() || !annotated_) return;
      commented_ = dash_ = true;
      list.describe_default(*this);
      commented_ = false;
    });
  }

  std::string text() const {
    std::size_t width = 0;
    for (const Line& line : lines_) width = std::max(width, line.text.size());
    width = std::min<std::size_t>(width, 44);
    std::string text;
    for (const Line& line : lines_) {
      text += line.text;
      if (annotated_)
        text +=
            std::string(width > line.text.size() ? width - line.text.size() : 0, ' ') + "  # " + line.comment;
      text += "\n";
    }
    return text;
  }

 private:
  struct Line {
    std::string text, comment;
  };

  void line(const std::string& text, const std::string& comment) {
    std::string start(indent_, ' ');
    if (dash_) start[indent_ - 2] = '-';
    dash_ = false;
    if (commented_) start[0] = '#';
    lines_.push_back({start + text, comment});
  }

  void indented(const std::string& name, std::size_t indent, const std::function<void()>& inside) {
    indent_ += indent;
    within(name, inside);
    indent_ -= indent;
  }

  bool annotated_ = false;
  std::map<std::string, std::string> defaults_;
  std::vector<Line> lines_;
  std::size_t indent_ = 0;
  bool dash_ = false;       // the next line opens an element of a list
  bool commented_ = false;  // lines that show keys without setting them
};

/// Looks for one key.
class Finder final : public PathVisitor {
 public:
  explicit Finder(std::string wanted) : wanted_(std::move(wanted)) {}

  void key(const Key& key) override {
    if (path_of(key.name) != wanted_) return;
    const auto* text = std::get_if<std::string*>(&key.value);
    found = text != nullptr ? **text : value_text(key.value);
  }

  std::optional<std::string> found;

 private:
  std::string wanted_;
};

}  // namespace

std::string to_yaml(const SectionReference& object) {
  Writer writer;
  object.show(writer);
  return writer.text();
}

std::string to_annotated_yaml(const SectionReference& object, const SectionReference& defaults) {
  Writer writer(defaults);
  object.show(writer);
  return writer.text();
}

std::string key_text(const SectionReference& object, const Schema& schema, const std::string& path) {
  Finder finder(path);
  object.show(finder);
  const std::vector<std::string> inside = finder.found ? std::vector<std::string>() : schema.keys_in(path);
  check(inside.empty(), Fault::request, "'", path,
        "' came, which is a section or a list; name a key in it: ", join_words(inside));
  check(finder.found.has_value(), Fault::request, "'", path,
        "' came, which is no key with a value in this recipe", schema.suggestion(path));
  return *finder.found;
}

}  // namespace conclave
