// NormalStep: one step of the normalizer of a tokenizer.json. Text passes through all of them in their order.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "framework/data/tokenizer_json/unicode_form.h"

namespace conclave {

struct NormalStep {
  enum class Kind { form, prepend, replace } kind = Kind::form;
  UnicodeForm form = UnicodeForm::nfc;
  std::string text{};  // put before a text that is not empty, or looked for ...
  std::string with{};  // ... and replaced by this
};

/// Returns the step that a field of the file describes, or nothing where Conclave does not do it.
std::optional<NormalStep> normal_step(const nlohmann::json& field);

/// Passes text through the steps.
std::string normalize(std::string text, const std::vector<NormalStep>& steps);

/// Replaces every occurrence of a text that is not empty.
std::string replaced(const std::string& text, const std::string& old, const std::string& with);

}  // namespace conclave
