#include "framework/recipe/parse.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <type_traits>

#include "framework/base/error.h"
#include "framework/recipe/key_paths.h"
#include "framework/recipe/schema.h"
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

/// Whether the whole text is a number of this type. Locale-free, and no hexadecimal or octal surprises.
template <class Number>
bool read_number(const std::string& text, Number& number) {
  const char* first = text.data() + (text.size() > 1 && text[0] == '+' && text[1] != '-');
  const char* last = text.data() + text.size();
  const auto [end, status] = std::from_chars(first, last, number);
  return status == std::errc() && end == last;
}

/// Walks schema and tree together and writes what the tree says over the recipe's present values.
class Reader final : public Visitor {
 public:
  Reader(Recipe& recipe, std::string source) : recipe_(recipe), source_(std::move(source)) {}

  void read(const YamlNode& root) {
    enter(root, "", [&] { describe(*this, recipe_); });
  }

  void key(const Key& key) override {
    const YamlNode* node = child(key.name);
    if (!node) return;
    const std::string path = join_path(path_, key.name);
    std::visit([&](auto* value) { read_value(*node, path, key, *value); }, key.value);
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
    std::erase_if(recipe_.places.of_key, [&](const auto& item) { return item.first.starts_with(prefix); });
    for (std::size_t index = 0; index < node->items.size(); ++index) {
      const YamlNode& item = *node->items[index];
      const std::string item_path = prefix + std::to_string(index);
      check(item.kind == YamlNode::Kind::map, Fault::request, place(item), item_path, ": ", shown(item),
            " came, expected a section of keys, for example {key: value}");
      list.append();
      enter(item, item_path, [&] { list.describe_element(index, *this); });
    }
  }

 private:
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
    if (node.from_override && is_list_path(path)) return;
    for (const YamlEntry& entry : node.entries)
      if (!is_key(path, entry.key))
        fail(Fault::request, place(entry.line), join_path(path, entry.key), ": there is no such key",
             suggest_key(path, entry.key));
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
    recipe_.places.of_key[path] = node.line > 0 ? join_text(source_, ":", node.line) : source_;
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
  void read_value(const YamlNode& node, const std::string& path, const Key& key, Value& value) {
    if constexpr (std::is_same_v<Value, std::vector<double>>) {
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

  Recipe& recipe_;
  std::string source_;
  const YamlNode* node_ = nullptr;  // the map that holds the keys being visited ...
  std::string path_;                // ... and its path
};

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  check(file.is_open(), Fault::request, "recipe '", path, "' cannot be read: ", std::strerror(errno));
  // One byte more than parse_yaml accepts: enough for it to refuse an endless file.
  std::string text(largest_recipe_text + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  check(!file.bad(), Fault::request, "recipe '", path, "' cannot be read; expected a YAML file");
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

}  // namespace

Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  const std::string text = read_file(path);
  check(parse_yaml(text, path)->kind != YamlNode::Kind::null, Fault::request, "recipe '", path,
        "' is empty; expected keys such as model, data and training (examples/quickstart.yaml has all it "
        "needs)");
  return parse_recipe(text, path, overrides);
}

Recipe parse_recipe(const std::string& text, const std::string& source,
                    const std::vector<std::string>& overrides) {
  Recipe recipe;
  const auto root = parse_yaml(text, source);
  Reader(recipe, source).read(*root);
  for (const std::string& override_text : overrides) apply_override(recipe, override_text);
  return recipe;
}

void apply_override(Recipe& recipe, const std::string& override_text) {
  const std::string source = "override '" + override_text + "'";
  const std::size_t equals = override_text.find('=');
  check(equals != std::string::npos && equals > 0, Fault::request, source,
        ": expected key.path=value, for example training.steps=100");
  // The value becomes the leaf of nested maps, which the reader then walks like a file. Its line means
  // nothing.
  auto leaf = std::make_shared<YamlNode>(*parse_yaml(override_text.substr(equals + 1), source));
  const bool folded = leaf->kind == YamlNode::Kind::scalar && has_line_break(override_text);
  check(
      !folded, Fault::request, "override ", quoted_text(override_text),
      ": the value has a line break, which YAML would read as a space or leave out; expected a value on one "
      "line");
  leaf->line = 0;
  std::shared_ptr<const YamlNode> node = leaf;
  std::string path = override_text.substr(0, equals);
  check(std::count(path.begin(), path.end(), '.') < 16, Fault::request, source, ": '", path,
        "' has more than 16 parts; no key of a recipe does");
  for (bool more = true; more;) {
    const std::size_t dot = path.rfind('.');
    more = dot != std::string::npos;
    const std::string name = more ? path.substr(dot + 1) : path;
    check(!name.empty(), Fault::request, source, ": a part of the key is empty");
    auto outer = std::make_shared<YamlNode>();
    outer->kind = YamlNode::Kind::map;
    outer->from_override = true;
    outer->entries.push_back({name, 0, node});
    node = outer;
    path = more ? path.substr(0, dot) : "";
  }
  Reader(recipe, source).read(*node);
}

std::string comment_in_override(const std::string& override_text) {
  const std::size_t equals = override_text.find('=');
  if (equals == std::string::npos) return "";
  const std::string value = override_text.substr(equals + 1);
  for (std::size_t at = value.find('#'); at != std::string::npos; at = value.find('#', at + 1)) {
    if (at > 0 && value[at - 1] != ' ' && value[at - 1] != '\t') continue;
    try {
      // A text that means the same without its end has a comment there.
      const auto whole = parse_yaml(value, "override"), without = parse_yaml(value.substr(0, at), "override");
      if (!same_yaml(*whole, *without)) continue;
    } catch (const Error&) {
      continue;  // inside quotes, or no YAML at all, which reading it says
    }
    const std::string key = override_text.substr(0, equals);
    return join_text("override '", override_text, "': YAML takes '", value.substr(at),
                     "' for a comment, so it is no part of the value. If it belongs there, put the value in "
                     "quotes that the shell leaves alone: '",
                     key, "=\"", value, "\"'");
  }
  return "";
}

bool is_override(const std::string& argument) {
  const std::size_t equals = argument.find('=');
  if (equals == std::string::npos || equals == 0) return false;
  return std::all_of(argument.begin(), argument.begin() + static_cast<std::ptrdiff_t>(equals), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
  });
}

}  // namespace conclave
