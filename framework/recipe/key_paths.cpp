#include "framework/recipe/key_paths.h"

#include <algorithm>
#include <vector>

#include "framework/recipe/nearest.h"
#include "framework/recipe/schema.h"

namespace conclave {
namespace {

struct KeyPath {
  std::string section;  // an element of a list is written "0", whichever it is
  std::string name;
  bool is_list = false, is_section = false;
  std::vector<std::string> words{};  // the only valid values, where they are few
};

std::vector<std::string> words_of(const Key& key) {
  if (std::holds_alternative<bool*>(key.value)) return {"true", "false"};
  if (!key.rule.infinity_word.empty()) return {key.rule.infinity_word};
  return std::holds_alternative<std::string*>(key.value) ? key.rule.words : std::vector<std::string>{};
}

class Collector final : public Visitor {
 public:
  void key(const Key& key) override { paths.push_back({section_, key.name, false, false, words_of(key)}); }
  void section(const char* name, const char*, const std::function<void()>& inside) override {
    paths.push_back({section_, name, false, true});
    within(join_path(section_, name), inside);
  }
  void list(const char* name, const char*, ListReference& list) override {
    paths.push_back({section_, name, true, false});
    within(join_path(section_, name) + ".0", [&] { list.describe_default(*this); });
  }

  std::vector<KeyPath> paths;

 private:
  void within(const std::string& section, const std::function<void()>& inside) {
    const std::string outer = section_;
    section_ = section;
    inside();
    section_ = outer;
  }
  std::string section_;
};

const std::vector<KeyPath>& all_paths() {
  static const std::vector<KeyPath> paths = [] {
    Collector collector;
    Recipe recipe;
    describe(collector, recipe);
    return collector.paths;
  }();
  return paths;
}

/// The names that users of other trainers have for a key, where letters alone do not lead to it.
struct OtherName {
  const char* name;
  const char* key;
};
constexpr OtherName other_names[] = {{"learning_rate", "optimizer.lr"},
                                     {"max_lr", "optimizer.lr"},
                                     {"min_lr", "optimizer.schedule.min_lr_ratio"},
                                     {"warmup", "optimizer.schedule.warmup_steps"},
                                     {"lr_warmup_steps", "optimizer.schedule.warmup_steps"},
                                     {"clip_grad", "optimizer.grad_clip"},
                                     {"max_grad_norm", "optimizer.grad_clip"},
                                     {"num_layers", "model.num_hidden_layers"},
                                     {"n_layers", "model.num_hidden_layers"},
                                     {"n_layer", "model.num_hidden_layers"},
                                     {"n_heads", "model.num_attention_heads"},
                                     {"n_head", "model.num_attention_heads"},
                                     {"num_query_groups", "model.num_key_value_heads"},
                                     {"n_embd", "model.hidden_size"},
                                     {"ffn_hidden_size", "model.intermediate_size"},
                                     {"norm_eps", "model.rms_norm_eps"},
                                     {"top_k", "model.moe.num_experts_per_tok"},
                                     {"batch_size", "training.global_batch_size"},
                                     {"micro_batch", "training.micro_batch_size"},
                                     {"seq_len", "data.sequence_length"},
                                     {"seq_length", "data.sequence_length"},
                                     {"max_steps", "training.steps"},
                                     {"train_iters", "training.steps"},
                                     {"save_interval", "checkpoint.interval"},
                                     {"output_dir", "output"}};

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

}  // namespace

bool is_key(const std::string& section, const std::string& name) {
  const std::string wanted = any_element(section);
  return std::any_of(all_paths().begin(), all_paths().end(),
                     [&](const KeyPath& path) { return path.section == wanted && path.name == name; });
}

std::vector<std::string> keys_in(const std::string& section) {
  const std::string wanted = any_element(section);
  std::vector<std::string> paths;
  for (const KeyPath& path : all_paths())
    if (path.section == wanted) paths.push_back(join_path(section, path.name));
  return paths;
}

bool is_list_path(const std::string& path) {
  const std::string wanted = any_element(path);
  return std::any_of(all_paths().begin(), all_paths().end(), [&](const KeyPath& key) {
    return key.is_list && join_path(key.section, key.name) == wanted;
  });
}

std::string suggest_key(const std::string& section, const std::string& name) {
  const std::string wanted = any_element(section);
  for (const OtherName& other : other_names)
    if (name == other.name) return "; did you mean " + std::string(other.key) + "?";
  std::vector<std::string> here, everywhere;
  for (const KeyPath& path : all_paths()) {
    everywhere.push_back(path.name);
    if (path.section == wanted) here.push_back(path.name);
  }
  // A key that has exactly this name elsewhere was put in the wrong section; else a slip of the pen is
  // likelier.
  const bool misplaced = std::find(everywhere.begin(), everywhere.end(), name) != everywhere.end();
  const std::string near_here = misplaced ? "" : nearest(name, here);
  if (!near_here.empty()) return "; did you mean " + join_path(section, near_here) + "?";
  const std::string near = misplaced ? name : nearest(name, everywhere);
  std::string meant;
  for (const KeyPath& path : all_paths())
    if (!near.empty() && path.name == near)
      meant += (meant.empty() ? "" : " or ") + join_path(path.section, path.name);
  if (!meant.empty()) return "; did you mean " + meant + "?";
  return "; the keys of " + (section.empty() ? "a recipe" : section) + " are " + join_words(here);
}

std::vector<std::string> complete_override(const std::string& begun) {
  const std::size_t equals = begun.find('=');
  const std::string path = begun.substr(0, equals);
  const std::size_t dot = path.rfind('.');
  const std::string section = dot == std::string::npos ? "" : path.substr(0, dot);
  const std::string name = path.substr(dot + 1);  // the whole path where there is no dot
  const std::string wanted = any_element(section);
  std::vector<std::string> offers;
  for (const KeyPath& key : all_paths()) {
    if (key.section != wanted) continue;
    const std::string whole = join_path(section, key.name);
    if (equals == std::string::npos) {
      if (key.name.starts_with(name)) offers.push_back(whole + (key.is_section ? "." : "="));
    } else if (key.name == name) {
      for (const std::string& word : key.words)
        if (word.starts_with(begun.substr(equals + 1))) offers.push_back(whole + "=" + word);
    }
  }
  return offers;
}

}  // namespace conclave
