// YAML text as a small tree that keeps the line of everything, built from yaml-cpp's events.
// It is stricter than yaml-cpp's own nodes: duplicate keys, bad UTF-8, deep nesting and huge texts are
// errors. No yaml-cpp exception leaves this file.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace conclave {

struct YamlNode;

struct YamlEntry {
  std::string key;
  int line;
  std::shared_ptr<const YamlNode> value;
};

struct YamlNode {
  enum class Kind { null, scalar, list, map };
  Kind kind = Kind::null;
  int line = 0;                // counted from 1; 0: not from a file
  std::string text;            // of a scalar
  bool quoted = false;         // a scalar that was written in quotes is a text, whatever it looks like
  bool from_override = false;  // a map that stands for a path: its keys may be indices of a list
  std::vector<std::shared_ptr<const YamlNode>> items;
  std::vector<YamlEntry> entries;
};

/// True where two trees say the same, wherever each line stands in their texts.
bool same_yaml(const YamlNode& one, const YamlNode& other);

constexpr std::size_t largest_recipe_text = 1 << 20;  // bytes

/// Parses one YAML document; the source ("quickstart.yaml") opens every error. Fault::request where it is not
/// YAML.
std::shared_ptr<const YamlNode> parse_yaml(const std::string& text, const std::string& source);

}  // namespace conclave
