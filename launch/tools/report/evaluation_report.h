// The output of `conclave evaluate`: tables for a terminal, or one JSON object.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/train/specialisation.h"

namespace conclave {

/// Returns the number as JSON has it, which knows neither NaN nor infinity.
nlohmann::ordered_json number_or_null(double value);

/// An EvaluationContext says what the numbers of an evaluation mean.
struct EvaluationContext {
  std::string checkpoint;              // its path
  std::vector<std::int64_t> blocks{};  // those with experts
  std::int64_t experts = 0, top_k = 0;
  std::int64_t layers() const { return static_cast<std::int64_t>(blocks.size()); }
};

/// Writes tables for a terminal: losses by domain, specialisation by layer, and each domain's most frequent
/// experts.
std::string evaluation_tables(const std::vector<DomainResult>& results, const EvaluationContext& context);

/// Writes the losses of two checkpoints on the same text, by domain and in the mean. The columns are the loss
/// of `results`, that of `others`, and how much more the others lose.
std::string comparison_table(const std::vector<DomainResult>& results,
                             const std::vector<DomainResult>& others);

/// {"domains": [{"domain", "lm_loss"}...], "mean_lm_loss"}: losses of `others` minus those of `results`.
nlohmann::ordered_json comparison_json(const std::vector<DomainResult>& results,
                                       const std::vector<DomainResult>& others);

/// Returns what evaluation_tables() tells and all that is behind it; docs/specialisation.md names every key.
/// NaN becomes null.
nlohmann::ordered_json evaluation_json(const std::vector<DomainResult>& results,
                                       const EvaluationContext& context);

}  // namespace conclave
