#include "framework/recipe/override.h"

#include <algorithm>
#include <memory>

#include "framework/base/error.h"
#include "framework/recipe/yaml_tree.h"

namespace conclave {

void apply_override(const ReadTarget& target, const std::string& override_text) {
  const std::string source = "override '" + override_text + "'";
  const std::size_t equals = override_text.find('=');
  check(equals != std::string::npos && equals > 0, Fault::request, source,
        ": expected key.path=value, for example ", target.schema.example());
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
  read_tree(target, *node, source);
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
