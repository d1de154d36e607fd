#include "launch/tools/convert/gguf/pre_tokenizer.h"

#include <algorithm>

#include "framework/base/error.h"

namespace conclave::gguf {
namespace {

using Json = nlohmann::json;

/// Stands for the regular expression of GPT-2, which ByteLevel itself has.
constexpr const char* byte_level_words = "ByteLevel";

struct Rule {
  const char* name;
  std::vector<std::string> steps;    // regular expressions whose matches are words of their own
  bool takes_whole_words = false;    // `ignore_merges`: a word that is a token is not joined from parts
  bool tells_case_by_ascii = false;  // llama.cpp knows capitals among the letters of ASCII only
};

/// The expressions are those of published tokenizers. llama.cpp repeats them in llama-vocab.cpp.
const std::vector<Rule>& rules() {
  static const std::vector<Rule> all = [] {
    const std::string contractions = R"((?i:'s|'t|'re|'ve|'m|'ll|'d))",
                      letters = R"(|[^\r\n\p{L}\p{N}]?\p{L}+)", end = R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
                      signs = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)", path_signs = R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*)";
    const std::string capitals = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])", small = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])",
                      other = R"([^\r\n\p{L}\p{N}]?)";
    const auto cased = [&](const std::string& ending) {
      return other + capitals + "*" + small + "+" + ending + "|" + other + capitals + "+" + small + "*" +
             ending;
    };
    const std::string in_threes = contractions + letters + R"(|\p{N}{1,3})" + signs + end;
    return std::vector<Rule>{
        {"gpt-2", {byte_level_words}},
        {"smollm", {R"(\p{N})", byte_level_words}},
        {"llama-bpe", {in_threes}, true},
        {"dbrx", {in_threes}},
        {"qwen2", {contractions + letters + R"(|\p{N})" + signs + end}},
        {"qwen35",
         {contractions + R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" + end}},
        {"seed-coder", {contractions + letters + R"(|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+)" + end}},
        {"deepseek-v3",
         {R"(\p{N}{1,3})", "[一-龥\u3040-ゟ゠-ヿ]+",
          R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^)"
          "\r\n"
          R"(\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[)"
          "\r\n"
          R"(]*|\s*[)"
          "\r\n"
          R"(]+|\s+(?!\S)|\s+)"}},
        {"gpt-4o", {cased(contractions + "?") + R"(|\p{N}{1,3})" + path_signs + end}, false, true},
        {"tekken", {cased("") + R"(|\p{N})" + path_signs + end}, true, true}};
  }();
  return all;
}

void collect(const Json& step, std::vector<const Json*>& steps) {
  if (!step.is_object() || step.value("type", "") != "Sequence") return steps.push_back(&step);
  for (const Json& inner : step.at("pretokenizers")) collect(inner, steps);
}

/// Every match is a word. So it is where what lies between is removed, if the matches leave nothing out.
bool takes_matches(const Json& split, const std::string& pattern) {
  const std::string behavior = split.value("behavior", "");
  const bool invert = split.value("invert", false);
  return invert ? behavior == "Removed" && pattern.ends_with(R"(|\s+)") : behavior == "Isolated";
}

/// The step as a Rule has it; empty where no rule has such a step.
std::string expression_of(const Json& step) {
  const std::string type = step.value("type", "");
  if (type == "Digits" && step.value("individual_digits", false)) return R"(\p{N})";
  if (type != "Split" || !step.at("pattern").contains("Regex")) return "";
  const auto pattern = step.at("pattern").at("Regex").get<std::string>();
  return takes_matches(step, pattern) ? pattern : "";
}

std::vector<std::string> steps_of(const Json& pre_tokenizer) {
  std::vector<const Json*> all;
  collect(pre_tokenizer, all);
  std::vector<std::string> steps;
  for (const Json* step : all) {
    if (step->value("type", "") != "ByteLevel")
      steps.push_back(expression_of(*step));
    else if (step->value("use_regex", true))
      steps.emplace_back(byte_level_words);
  }
  return steps;
}

}  // namespace

std::string pre_tokenizer_named(const Json& tokenizer, const std::string& path, const Say& say) {
  const std::vector<std::string> steps = steps_of(tokenizer.at("pre_tokenizer"));
  const Json& model = tokenizer.at("model");
  const auto ignores = model.find("ignore_merges");
  const bool takes_whole_words = ignores != model.end() && ignores->is_boolean() && ignores->get<bool>();
  const auto found = std::find_if(rules().begin(), rules().end(), [&](const Rule& rule) {
    return rule.steps == steps && rule.takes_whole_words == takes_whole_words;
  });
  std::string known;
  for (const Rule& rule : rules()) known += join_text(known.empty() ? "" : ", ", rule.name);
  check(found != rules().end(), Fault::request, path, ": its pre_tokenizer, with ignore_merges ",
        takes_whole_words ? "true" : "false",
        ", is none of those that llama.cpp has built in and Conclave knows (", known,
        "). The ids of a text would be others there; --tokenizer none exports without a tokenizer.");
  if (found->tells_case_by_ascii)
    say(join_text(
        path, ": llama.cpp's rule ", found->name,
        " tells capitals from small letters in ASCII alone; words that mix both in other letters may "
        "get other ids there."));
  return found->name;
}

}  // namespace conclave::gguf
