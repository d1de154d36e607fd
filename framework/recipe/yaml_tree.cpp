#include "framework/recipe/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <sstream>
#include <unordered_map>
#include <utility>

#include "framework/base/error.h"

namespace conclave {
namespace {

// A recipe nests five deep; the parser recurses, so a text of brackets must stop well before the stack does.
constexpr std::size_t deepest_nesting = 32;

using NodePointer = std::shared_ptr<YamlNode>;

class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const std::string& source) : source_(source) {}

  NodePointer root() const { return root_; }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(leaf(YamlNode::Kind::null, mark), anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    check(found != anchors_.end(), Fault::request, place(mark), "an alias stands inside of what it names");
    add(found->second, 0);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check(tag == "?" || tag == "!" || tag.empty(), Fault::request, place(mark), "the YAML tag '", tag,
          "' came, expected a value without a tag");
    NodePointer node = leaf(YamlNode::Kind::scalar, mark);
    node->text = value;
    node->quoted = tag == "!";
    add(node, anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(YamlNode::Kind::list, mark, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(YamlNode::Kind::map, mark, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Level {
    NodePointer node;
    YAML::anchor_t anchor;
    std::optional<std::string> key;  // of a map, until its value comes
    int key_line = 0;
    std::unordered_map<std::string, int> lines{};  // of a map's keys
  };

  std::string place(const YAML::Mark& mark) const { return join_text(source_, ":", mark.line + 1, ": "); }

  static NodePointer leaf(YamlNode::Kind kind, const YAML::Mark& mark) {
    auto node = std::make_shared<YamlNode>();
    node->kind = kind;
    node->line = mark.line + 1;
    return node;
  }

  void open(YamlNode::Kind kind, const YAML::Mark& mark, YAML::anchor_t anchor) {
    check(levels_.size() < deepest_nesting, Fault::request, place(mark), "more than ", deepest_nesting,
          " levels of nesting came; a recipe needs no more than six");
    const bool is_key =
        !levels_.empty() && levels_.back().node->kind == YamlNode::Kind::map && !levels_.back().key;
    check(!is_key, Fault::request, place(mark),
          "a list or a section stands where a key is expected; is a bracket left open?");
    levels_.push_back({leaf(kind, mark), anchor, {}, 0});
  }

  void close() {
    const Level level = std::move(levels_.back());
    levels_.pop_back();
    add(level.node, level.anchor);
  }

  void add(const NodePointer& node, YAML::anchor_t anchor) {
    if (anchor) anchors_[anchor] = node;
    if (levels_.empty()) {
      root_ = node;
      return;
    }
    Level& level = levels_.back();
    if (level.node->kind == YamlNode::Kind::list) {
      level.node->items.push_back(node);
    } else if (level.key) {
      level.node->entries.push_back({*level.key, level.key_line, node});
      level.key.reset();
    } else {
      add_key(level, *node);
    }
  }

  void add_key(Level& level, const YamlNode& node) {
    const std::string place = join_text(source_, ":", node.line, ": ");
    check(node.kind == YamlNode::Kind::scalar, Fault::request, place, "a key is missing before ':'");
    if (const auto [first, is_new] = level.lines.emplace(node.text, node.line); !is_new)
      fail(Fault::request, place, "the key '", path_of(node.text), "' is there twice; it came first in line ",
           first->second, ". Keep one of them.");
    level.key = node.text;
    level.key_line = node.line;
  }

  std::string path_of(const std::string& last) const {
    std::string path;
    for (const Level& level : levels_) {
      if (level.key) path += *level.key + ".";
      if (level.node->kind == YamlNode::Kind::list) path += std::to_string(level.node->items.size()) + ".";
    }
    return path + last;
  }

  const std::string& source_;
  NodePointer root_;
  std::vector<Level> levels_;
  std::map<YAML::anchor_t, NodePointer> anchors_;
};

/// The line of the first byte that is not UTF-8 text, or 0.
int first_bad_line(const std::string& text) {
  int line = 1;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80                   ? 1
                               : lead >= 0xc2 && lead < 0xe0 ? 2
                               : lead >= 0xe0 && lead < 0xf0 ? 3
                               : lead >= 0xf0 && lead < 0xf5 ? 4
                                                             : 0;
    if (length == 0 || lead == 0 || i + length > text.size()) return line;
    std::uint32_t point = length == 1 ? lead : lead & (0xffu >> (length + 1));
    for (std::size_t k = 1; k < length; ++k) {
      const auto byte = static_cast<unsigned char>(text[i + k]);
      if ((byte & 0xc0) != 0x80) return line;
      point = (point << 6) | (byte & 0x3fu);
    }
    const bool overlong = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
    if (overlong || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return line;
    if (lead == '\n') ++line;
    i += length;
  }
  return 0;
}

}  // namespace

bool same_yaml(const YamlNode& one, const YamlNode& other) {
  const auto same_item = [](const auto& a, const auto& b) { return same_yaml(*a, *b); };
  const auto same_entry = [](const YamlEntry& a, const YamlEntry& b) {
    return a.key == b.key && same_yaml(*a.value, *b.value);
  };
  return one.kind == other.kind && one.text == other.text && one.quoted == other.quoted &&
         std::equal(one.items.begin(), one.items.end(), other.items.begin(), other.items.end(), same_item) &&
         std::equal(one.entries.begin(), one.entries.end(), other.entries.begin(), other.entries.end(),
                    same_entry);
}

std::shared_ptr<const YamlNode> parse_yaml(const std::string& text, const std::string& source) {
  check(text.size() <= largest_recipe_text, Fault::request, source, ": ", text.size(),
        " bytes came, expected a recipe of at most ", largest_recipe_text, " bytes");
  const int bad_line = first_bad_line(text);
  check(bad_line == 0, Fault::request, source, ":", bad_line,
        ": this line is not UTF-8 text; save it as UTF-8");
  TreeBuilder builder(source);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    const bool any = parser.HandleNextDocument(builder);
    const std::shared_ptr<const YamlNode> root = any ? builder.root() : nullptr;
    TreeBuilder second(source);
    check(!any || !parser.HandleNextDocument(second), Fault::request, source,
          ": a second YAML document came after '---', expected one");
    return root ? root : std::make_shared<const YamlNode>();
  } catch (const YAML::Exception& error) {
    const int line = error.mark.is_null() ? 1 : error.mark.line + 1;
    const int column = error.mark.is_null() ? 1 : error.mark.column + 1;
    fail(Fault::request, source, ":", line, ":", column, ": this is not valid YAML: ", error.msg);
  }
}

}  // namespace conclave
