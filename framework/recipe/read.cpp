#include "framework/recipe/read.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <type_traits>

#include "framework/base/error.h"
#include "framework/recipe/nearest.h"
#include "framework/recipe/yaml_tree.h"

namespace conclave {
namespace {

std::string shown(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::null:
      return "nothing";
    case YamlNode::Kind::list:
      return "a list";
    case YamlNode::Kind::map:
      return "a section of keys";
    case YamlNode::Kind::scalar:
      break;
  }
  const std::string text = node.text.size() > 60 ? node.text.substr(0, 57) + "..." : node.text;
  return node.quoted ? "the quoted text \"" + text + "\"" : "'" + text + "'";
}

/// True where the whole text is a number of this type. Locale-free, and no hexadecimal or octal surprises.
template <class Number>
bool read_number(const std::string& text, Number& number) {
  const char* first = text.data() + (text.size() > 1 && text[0] == '+' && text[1] != '-');
  const char* last = text.data() + text.size();
  const auto [end, status] = std::from_chars(first, last, number);
  return status == std::errc() && end == last;
}

/// The names of what an alternative of a choice has.
class NameCollector final : public Visitor {
 public:
  void key(const Key& key) override { names.emplace_back(key.name); }
  void section(const char* name, const char*, const std::function<void()>&) override {
    names.emplace_back(name);
  }
  void list(const char* name, const char*, ListReference&) override { names.emplace_back(name); }
  void choice(const char* name, const char*, ChoiceReference&) override { names.emplace_back(name); }
  std::vector<std::string> names;
};

/// Walks object and tree together and writes what the tree says over the object's present values.
class Reader final : public Visitor {
 public:
  Reader(const ReadTarget& target, std::string source) : target_(target), source_(std::move(source)) {}

  void read(const YamlNode& root) {
    enter(root, "", [&] { target_.object.show(*this); });
  }

  void key(const Key& key) override {
    const YamlNode* node = child(key.name);
    if (!node) return;
    const std::string path = join_path(path_, key.name);
    std::visit([&](const auto& value) { read_reference(*node, path, key, value); }, key.value);
    const std::string wrong = complaint(key);
    check(wrong.empty(), Fault::request, place(*node), path, ": ", wrong);
  }

  void section(const char* name, const char*, const std::function<void()>& inside) override {
    if (const YamlNode* node = child(name)) enter(*node, join_path(path_, name), inside);
  }

  void list(const char* name, const char*, ListReference& list) override {
    const YamlNode* node = child(name);
    if (!node) return;
    const std::string path = join_path(path_, name);
    if (node->from_override) {
      for (const YamlEntry& entry : node->entries) {
        const std::size_t index = element_index(*node, path, entry.key, list.size());
        enter(*entry.value, join_path(path, entry.key), [&] { list.describe_element(index, *this); });
      }
      return;
    }
    check(node->kind == YamlNode::Kind::list, Fault::request, place(*node), path, ": ", shown(*node),
          " came, expected a list, for example [{...}, {...}], or [] for none");
    list.clear();
    const std::string prefix = path + ".";
    forget_below(path);
    for (std::size_t index = 0; index < node->items.size(); ++index) {
      const YamlNode& item = *node->items[index];
      const std::string item_path = prefix + std::to_string(index);
      check(item.kind == YamlNode::Kind::map, Fault::request, place(item), item_path, ": ", shown(item),
            " came, expected a section of keys, for example {key: value}");
      list.append();
      enter(item, item_path, [&] { list.describe_element(index, *this); });
    }
  }

  void choice(const char* name, const char*, ChoiceReference& choice) override {
    const YamlNode* node = child(name);
    if (!node) return;
    const std::string path = join_path(path_, name);
    if (node->kind == YamlNode::Kind::scalar) {
      choose(*node, path, path, choice);
      return remember(*node, path);
    }
    check(node->kind != YamlNode::Kind::list, Fault::request, place(*node), path,
          ": a list came, expected one of ", join_words(choice.kinds()), ", or a section of keys with its ",
          kind_of_choice);
    enter(*node, path, [&] {
      if (const YamlNode* kind = child(kind_of_choice)) {
        const std::string kind_path = join_path(path, kind_of_choice);
        check(kind->kind == YamlNode::Kind::scalar, Fault::request, place(*kind), kind_path, ": ",
              shown(*kind), " came, expected one of ", join_words(choice.kinds()));
        if (kind->text != choice.kinds()[choice.chosen()]) choose(*kind, kind_path, path, choice);
        remember(*kind, kind_path);
      }
      NameCollector own;
      choice.describe_chosen(own);
      own.names.insert(own.names.begin(), kind_of_choice);
      for (const YamlEntry& entry : node_->entries)
        check(std::find(own.names.begin(), own.names.end(), entry.key) != own.names.end(), Fault::request,
              place(entry.line), join_path(path, entry.key), ": there is no such key where the kind is ",
              choice.kinds()[choice.chosen()], ", whose keys are ", join_words(own.names));
      choice.describe_chosen(*this);
    });
  }

  void scheduled(const Key& number, ScheduleReference& schedule) override {
    const YamlNode* node = child(number.name);
    if (!node) return;
    const std::string path = join_path(path_, number.name);
    const bool moves = node->kind == YamlNode::Kind::map;
    if (moves != schedule.moves()) {
      schedule.set_moves(moves);
      forget_below(path);
    }
    if (!moves) return key(number);
    enter(*node, path, [&] { schedule.describe_course(*this); });
  }

 private:
  /// The alternative of this word, with every default; what was set of the one before is forgotten.
  void choose(const YamlNode& node, const std::string& word_path, const std::string& path,
              ChoiceReference& choice) {
    const std::vector<std::string>& kinds = choice.kinds();
    const auto found = std::find(kinds.begin(), kinds.end(), node.text);
    check(found != kinds.end(), Fault::request, place(node), word_path, ": ",
          word_complaint(node.text, kinds));
    choice.choose(static_cast<std::size_t>(found - kinds.begin()));
    forget_below(path);
  }

  void forget_below(const std::string& path) {
    const std::string prefix = path + ".";
    std::erase_if(target_.places.of_key, [&](const auto& item) { return item.first.starts_with(prefix); });
  }

  template <class Inside>
  void enter(const YamlNode& node, const std::string& path, const Inside& inside) {
    const bool section = node.kind == YamlNode::Kind::map || node.kind == YamlNode::Kind::null;
    check(section, Fault::request, place(node), path.empty() ? "the recipe" : path, ": ", shown(node),
          " came, expected a section of keys");
    check_keys(node, path);
    remember(node, path);
    const YamlNode* outer_node = node_;
    const std::string outer_path = path_;
    node_ = &node;
    path_ = path;
    inside();
    node_ = outer_node;
    path_ = outer_path;
  }

  void check_keys(const YamlNode& node, const std::string& path) {
    if (node.from_override && target_.schema.is_list(path)) return;
    for (const YamlEntry& entry : node.entries)
      if (!target_.schema.is_key(path, entry.key))
        fail(Fault::request, place(entry.line), join_path(path, entry.key), ": there is no such key",
             target_.schema.suggestion(path, entry.key));
  }

  const YamlNode* child(const char* name) const {
    for (const YamlEntry& entry : node_->entries)
      if (entry.key == name) return entry.value.get();
    return nullptr;
  }

  std::string place(int line) const {
    return line > 0 ? join_text(source_, ":", line, ": ") : source_ + ": ";
  }
  std::string place(const YamlNode& node) const { return place(node.line); }
  void remember(const YamlNode& node, const std::string& path) {
    target_.places.of_key[path] = node.line > 0 ? join_text(source_, ":", node.line) : source_;
  }

  std::size_t element_index(const YamlNode& node, const std::string& path, const std::string& text,
                            std::size_t size) const {
    std::size_t index = 0;
    check(read_number(text, index) && index < size, Fault::request, place(node), path, ": element '", text,
          "' is not there; the list has ", size, size == 1 ? " element" : " elements", " and counts from 0");
    return index;
  }

  [[noreturn]] void refuse(const YamlNode& node, const std::string& path, const Key& key,
                           const std::string& hint = "") const {
    fail(Fault::request, place(node), path, ": ", shown(node), " came, expected ", type_text(key), hint);
  }

  template <class Value>
  void read_reference(const YamlNode& node, const std::string& path, const Key& key, Value* value) {
    read_value(node, path, key, *value);
  }
  void read_reference(const YamlNode& node, const std::string& path, const Key& key,
                      const WordReference& value) {
    std::string text;
    read_value(node, path, key, text);
    check(value.set(text), Fault::request, place(node), path, ": ", word_complaint(text, value.words()));
  }

  template <class Value>
  void read_value(const YamlNode& node, const std::string& path, const Key& key, Value& value) {
    if constexpr (std::is_same_v<Value, std::vector<std::int64_t>>) {
      read_list(node, path, key, value, ", for example [0, 1]");
    } else if constexpr (std::is_same_v<Value, std::vector<double>>) {
      read_list(node, path, key, value, ", for example [0.9, 0.95]");
    } else if constexpr (std::is_same_v<Value, std::vector<std::string>>) {
      read_list(node, path, key, value, ", for example [one, two]");
    } else {
      if (node.kind != YamlNode::Kind::scalar)
        refuse(node, path, key, node.kind == YamlNode::Kind::null ? "; write \"\" for an empty text" : "");
      if constexpr (std::is_same_v<Value, std::string>) {
        value = node.text;
      } else {
        if (node.quoted) refuse(node, path, key, " without quotes");
        if constexpr (std::is_same_v<Value, bool>) {
          if (node.text != "true" && node.text != "false") refuse(node, path, key);
          value = node.text == "true";
        } else {
          read_plain_number(node, path, key, value);
        }
      }
    }
    remember(node, path);
  }

  template <class Number>
  void read_plain_number(const YamlNode& node, const std::string& path, const Key& key, Number& number) {
    if constexpr (std::is_floating_point_v<Number>)
      if (!key.rule.infinity_word.empty() && node.text == key.rule.infinity_word) {
        number = std::numeric_limits<Number>::infinity();
        return;
      }
    Number read{};
    if (!read_number(node.text, read)) {
      double real = 0;
      const bool is_real = read_number(node.text, real) && std::isfinite(real);
      const bool is_whole = is_real && real == std::trunc(real) && std::abs(real) < 1e15;
      std::string hint;
      if (is_whole && real >= static_cast<double>(std::numeric_limits<Number>::lowest()))
        hint = "; write " + number_text(real);
      if (node.text.find('_') != std::string::npos) hint = " without underscores";
      refuse(node, path, key, hint);
    }
    if constexpr (std::is_floating_point_v<Number>)
      if (!std::isfinite(read)) refuse(node, path, key, " that is finite");
    number = read;
  }

  template <class Element>
  void read_list(const YamlNode& node, const std::string& path, const Key& key, std::vector<Element>& values,
                 const char* example) {
    const Key element{key.name, static_cast<Element*>(nullptr), key.meaning, key.rule};
    if (node.from_override) {
      for (const YamlEntry& entry : node.entries) {
        const std::size_t index = element_index(node, path, entry.key, values.size());
        read_value(*entry.value, join_path(path, entry.key), element, values[index]);
      }
      return;
    }
    if (node.kind != YamlNode::Kind::list) refuse(node, path, key, example);
    values.assign(node.items.size(), Element{});
    for (std::size_t index = 0; index < node.items.size(); ++index)
      read_value(*node.items[index], path + "." + std::to_string(index), element, values[index]);
  }

  const ReadTarget& target_;
  std::string source_;
  const YamlNode* node_ = nullptr;  // the map that holds the keys being visited ...
  std::string path_;                // ... and its path
};

}  // namespace

std::string read_recipe_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  check(file.is_open(), Fault::request, "recipe '", path, "' cannot be read: ", std::strerror(errno));
  // One byte more than parse_yaml accepts: enough for it to refuse an endless file.
  std::string text(largest_recipe_text + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  check(!file.bad(), Fault::request, "recipe '", path, "' cannot be read; expected a YAML file");
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

void read_tree(const ReadTarget& target, const YamlNode& root, const std::string& source) {
  Reader(target, source).read(root);
}

void read_text(const ReadTarget& target, const std::string& text, const std::string& source) {
  read_tree(target, *parse_yaml(text, source), source);
}

}  // namespace conclave
