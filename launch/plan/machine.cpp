#include "launch/plan/machine.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <vector>

#include "framework/base/error.h"
#include "framework/recipe/key.h"
#include "framework/recipe/nearest.h"
#include "framework/recipe/yaml_tree.h"

namespace conclave {
namespace {

Rule positive() {
  return {.least = 0, .least_excluded = true};
}
Rule zero_or_more() {
  return {.least = 0};
}

/// Every key of a description, once; keys of sections as section.key.
std::vector<Key> keys_of(MachineModel& m) {
  return {
      {"name", &m.name, "what is described", {.filled = true}},
      {"precision", &m.precision, "of the recipes that these rates are for", {}},
      {"processors_per_node",
       &m.processors_per_node,
       "cores, or GPUs; a rank has one or several, or shares one",
       {.least = 1, .most = 1e6}},
      {"ranks_per_node", &m.ranks_per_node, "consecutive ranks lie on one node", {.least = 1, .most = 1e6}},
      {"products.operations_per_second", &m.products.operations_per_second,
       "matrix products with one large weight", positive()},
      {"products.operand_bytes_per_second", &m.products.operand_bytes_per_second,
       "their three matrices, in addition", positive()},
      {"grouped_products.operations_per_second", &m.grouped_products.operations_per_second,
       "products of many experts", positive()},
      {"grouped_products.operand_bytes_per_second", &m.grouped_products.operand_bytes_per_second,
       "their matrices, in addition", positive()},
      {"attention.operations_per_second", &m.attention_operations_per_second, "products inside attention",
       positive()},
      {"attention.scores_per_second", &m.scores_per_second, "numbers through its softmax", positive()},
      {"passes.bytes_per_second", &m.pass_bytes_per_second,
       "activations through norms, rotations, sums, permutations", positive()},
      {"passes.exponentials_per_second", &m.exponentials_per_second, "numbers through SwiGLU or the loss",
       positive()},
      {"passes.optimizer_bytes_per_second", &m.optimizer_bytes_per_second, "bytes through AdamW", positive()},
      {"passes.call_seconds", &m.call_seconds, "a kernel with nothing to do", zero_or_more()},
      {"within_node.latency_seconds", &m.within_node.latency_seconds, "of a message", zero_or_more()},
      {"within_node.message_seconds", &m.within_node.message_seconds, "of each further one sent at once",
       zero_or_more()},
      {"within_node.bytes_per_second", &m.within_node.bytes_per_second, "of each rank while all send",
       positive()},
      {"between_nodes.latency_seconds", &m.between_nodes.latency_seconds, "of a message", zero_or_more()},
      {"between_nodes.message_seconds", &m.between_nodes.message_seconds, "of each further one sent at once",
       zero_or_more()},
      {"between_nodes.bytes_per_second", &m.between_nodes.bytes_per_second,
       "of a node, in each direction; 0: there is one node", zero_or_more()},
      {"collectives.reduced_bytes_per_second", &m.reduced_bytes_per_second, "added up by a rank",
       zero_or_more()},
      {"collectives.overlap",
       &m.overlap,
       "share of computing's time that the network can use as well",
       {.least = 0, .most = 1}},
      {"collectives.nonblocking_all_reduce",
       &m.nonblocking_all_reduce,
       "best algorithm, or tree as Open MPI's in place",
       {.words = {"best", "tree"}}},
  };
}

/// The keys that a description of one processor need not have.
bool is_of_network(const std::string& key) {
  return key.starts_with("within_node.") || key.starts_with("between_nodes.") ||
         key.starts_with("collectives.");
}

/// A scalar of the file and where it stands.
struct Entry {
  std::string path;
  const YamlNode* node;
};

void collect(const YamlNode& map, const std::string& path, const std::string& source,
             std::vector<Entry>& entries) {
  check(map.kind == YamlNode::Kind::map, Fault::request, source, ":", map.line, ": ",
        path.empty() ? "the description" : path, ": expected a section of keys");
  for (const YamlEntry& entry : map.entries) {
    const std::string inner = join_path(path, entry.key);
    if (entry.value->kind == YamlNode::Kind::map)
      collect(*entry.value, inner, source, entries);
    else
      entries.push_back({inner, entry.value.get()});
  }
}

void read(const Key& key, const YamlNode& node, const std::string& source) {
  const std::string place = join_text(source, ":", node.line, ": ", key.name, ": ");
  check(node.kind == YamlNode::Kind::scalar, Fault::request, place, "expected ", type_text(key.value));
  if (auto* const* text = std::get_if<std::string*>(&key.value)) {
    **text = node.text;
  } else if (const auto* word = std::get_if<WordReference>(&key.value)) {
    check(word->set(node.text), Fault::request, place, word_complaint(node.text, word->words()));
  } else {
    double number = 0;
    const char* last = node.text.data() + node.text.size();
    const auto [end, status] = std::from_chars(node.text.data(), last, number);
    check(status == std::errc() && end == last, Fault::request, place, "'", node.text, "' came, expected ",
          type_text(key.value));
    if (auto* const* whole = std::get_if<std::int64_t*>(&key.value)) {
      check(number >= 0 && number < 1e15 && number == static_cast<double>(static_cast<std::int64_t>(number)),
            Fault::request, place, "'", node.text, "' came, expected a whole number");
      **whole = static_cast<std::int64_t>(number);
    } else {
      *std::get<double*>(key.value) = number;
    }
  }
  const std::string wrong = complaint(key);
  check(wrong.empty(), Fault::request, place, wrong);
}

}  // namespace

MachineModel parse_machine(const std::string& text, const std::string& source) {
  MachineModel machine;
  const std::shared_ptr<const YamlNode> root = parse_yaml(text, source);
  std::vector<Entry> entries;
  collect(*root, "", source, entries);
  std::vector<Key> keys = keys_of(machine);
  std::vector<std::string> names;
  for (const Key& key : keys) names.emplace_back(key.name);
  for (const Entry& entry : entries) {
    const auto key =
        std::find_if(keys.begin(), keys.end(), [&](const Key& k) { return k.name == entry.path; });
    check(key != keys.end(), Fault::request, source, ":", entry.node->line, ": ", entry.path,
          ": there is no such key", did_you_mean(entry.path, names));
    read(*key, *entry.node, source);
  }
  for (const Key& key : keys) {
    const std::string name = key.name;
    const bool optional = is_of_network(name);
    const bool is_there =
        std::any_of(entries.begin(), entries.end(), [&](const Entry& entry) { return entry.path == name; });
    check(is_there || optional, Fault::request, source, ": ", name, " is missing: ", key.meaning);
  }
  return machine;
}

MachineModel load_machine(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  const bool read = static_cast<bool>(file) && static_cast<bool>(text << file.rdbuf());
  check(read, Fault::request, path, " cannot be read; `conclave bench --machine FILE` writes a description");
  return parse_machine(text.str(), path);
}

std::string to_yaml(const MachineModel& machine) {
  MachineModel copy = machine;
  std::string text, section;
  for (const Key& key : keys_of(copy)) {
    const std::string name = key.name;
    if (copy.between_nodes.bytes_per_second == 0 && name.starts_with("between_nodes.")) continue;
    if (copy.within_node.bytes_per_second == 0 && is_of_network(name)) continue;
    const std::size_t dot = name.find('.');
    const std::string own = dot == std::string::npos ? "" : name.substr(0, dot);
    if (own != section && !own.empty()) text += own + ":\n";
    section = own;
    const std::string line =
        (own.empty() ? "" : "  ") + name.substr(own.empty() ? 0 : dot + 1) + ": " + value_text(key.value);
    text += line + std::string(line.size() < 48 ? 48 - line.size() : 1, ' ') + "# " + key.meaning + "\n";
  }
  return text;
}

}  // namespace conclave
