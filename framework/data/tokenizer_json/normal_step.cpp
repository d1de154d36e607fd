#include "framework/data/tokenizer_json/normal_step.h"

#include <nlohmann/json.hpp>

namespace conclave {

std::optional<NormalStep> normal_step(const nlohmann::json& field) {
  using Kind = NormalStep::Kind;
  const std::string type = field.is_object() ? field.value("type", "") : "";
  for (const auto& [name, form] : {std::pair{"NFC", UnicodeForm::nfc},
                                   {"NFD", UnicodeForm::nfd},
                                   {"NFKC", UnicodeForm::nfkc},
                                   {"NFKD", UnicodeForm::nfkd}})
    if (type == name) return NormalStep{.form = form};
  if (type == "Prepend")
    return NormalStep{.kind = Kind::prepend, .text = field.at("prepend").get<std::string>()};
  if (type != "Replace" || !field.at("pattern").contains("String")) return {};
  NormalStep step{.kind = Kind::replace,
                  .text = field.at("pattern").at("String").get<std::string>(),
                  .with = field.at("content").get<std::string>()};
  return step.text.empty() ? std::nullopt : std::optional(step);
}

std::string replaced(const std::string& text, const std::string& old, const std::string& with) {
  std::string result;
  std::size_t from = 0;
  for (std::size_t at = text.find(old); at != std::string::npos; at = text.find(old, from)) {
    result.append(text, from, at - from).append(with);
    from = at + old.size();
  }
  return result.append(text, from);
}

std::string normalize(std::string text, const std::vector<NormalStep>& steps) {
  for (const NormalStep& step : steps) {
    if (step.kind == NormalStep::Kind::form)
      text = normalize(text, step.form);
    else if (step.kind == NormalStep::Kind::replace)
      text = replaced(text, step.text, step.with);
    else if (!text.empty())
      text.insert(0, step.text);
  }
  return text;
}

}  // namespace conclave
