#include "framework/recipe/write.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "framework/base/error.h"
#include "framework/recipe/key_paths.h"
#include "framework/recipe/nearest.h"
#include "framework/recipe/schema.h"

namespace conclave {
namespace {

/// The default of every key by its path; in lists the default of an element's key, under the index "*".
class DefaultCollector final : public Visitor {
 public:
  void key(const Key& key) override { defaults[join_path(path_, key.name)] = value_text(key); }
  void section(const char* name, const char*, const std::function<void()>& inside) override {
    within(join_path(path_, name), inside);
  }
  void list(const char* name, const char*, ListReference& list) override {
    within(join_path(path_, name) + ".*", [&] { list.describe_default(*this); });
  }

  std::map<std::string, std::string> defaults;

 private:
  void within(const std::string& path, const std::function<void()>& inside) {
    const std::string outer = path_;
    path_ = path;
    inside();
    path_ = outer;
  }
  std::string path_;
};

class Writer final : public Visitor {
 public:
  explicit Writer(bool annotated) : annotated_(annotated) {
    if (!annotated) return;
    DefaultCollector collector;
    Recipe recipe;
    describe(collector, recipe);
    defaults_ = collector.defaults;
  }

  void key(const Key& key) override {
    std::string comment = key.meaning;
    const std::string& usual = defaults_[join_path(path_, key.name)];
    if (usual != "\"\"") comment += " [" + usual + "]";
    line(std::string(key.name) + ": " + value_text(key), comment);
  }

  void section(const char* name, const char* meaning, const std::function<void()>& inside) override {
    line(std::string(name) + ":", meaning);
    within(name, 2, inside);
  }

  void list(const char* name, const char* meaning, ListReference& list) override {
    line(std::string(name) + (list.size() ? ":" : ": []"), meaning);
    within(std::string(name) + ".*", 4, [&] {
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

  void within(const std::string& name, std::size_t indent, const std::function<void()>& inside) {
    const std::string outer = path_;
    path_ = join_path(path_, name);
    indent_ += indent;
    inside();
    indent_ -= indent;
    path_ = outer;
  }

  bool annotated_;
  std::map<std::string, std::string> defaults_;
  std::vector<Line> lines_;
  std::string path_;
  std::size_t indent_ = 0;
  bool dash_ = false;       // the next line opens an element of a list
  bool commented_ = false;  // lines that show keys without setting them
};

std::string write(Recipe recipe, bool annotated) {
  Writer writer(annotated);
  describe(writer, recipe);
  return writer.text();
}

}  // namespace

std::string to_yaml(const Recipe& recipe) {
  return write(recipe, false);
}
std::string to_annotated_yaml(const Recipe& recipe) {
  return write(recipe, true);
}

namespace {

/// Looks for one key.
class Finder final : public Visitor {
 public:
  explicit Finder(std::string wanted) : wanted_(std::move(wanted)) {}

  void key(const Key& key) override {
    if (join_path(path_, key.name) != wanted_) return;
    const auto* text = std::get_if<std::string*>(&key.value);
    found = text != nullptr ? **text : value_text(key.value);
  }
  void section(const char* name, const char*, const std::function<void()>& inside) override {
    within(name, inside);
  }
  void list(const char* name, const char*, ListReference& list) override {
    for (std::size_t index = 0; index < list.size(); ++index)
      within(join_path(name, std::to_string(index)), [&] { list.describe_element(index, *this); });
  }

  std::optional<std::string> found;

 private:
  void within(const std::string& name, const std::function<void()>& inside) {
    const std::string outer = path_;
    path_ = join_path(path_, name);
    inside();
    path_ = outer;
  }
  std::string wanted_, path_;
};

}  // namespace

std::string key_text(const Recipe& recipe, const std::string& path) {
  Finder finder(path);
  Recipe copy = recipe;
  describe(finder, copy);
  const std::size_t dot = path.rfind('.');
  const std::vector<std::string> inside = finder.found ? std::vector<std::string>() : keys_in(path);
  check(inside.empty(), Fault::request, "'", path,
        "' came, which is a section or a list; name a key in it: ", join_words(inside));
  check(finder.found.has_value(), Fault::request, "'", path,
        "' came, which is no key with a value in this recipe",
        dot == std::string::npos ? suggest_key("", path)
                                 : suggest_key(path.substr(0, dot), path.substr(dot + 1)));
  return *finder.found;
}

}  // namespace conclave
