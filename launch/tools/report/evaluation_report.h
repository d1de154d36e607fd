// What `conclave evaluate` prints: tables for a terminal, or one JSON object.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/train/specialisation.h"

namespace conclave {

/// As JSON has it, which knows neither NaN nor infinity.
nlohmann::ordered_json number_or_null(double value);

/// What the numbers of an evaluation mean.
struct EvaluationContext {
  std::string checkpoint;        // its path
  std::int64_t first_block = 0;  // blocks before it have no experts
  std::int64_t layers = 0;       // that have
  std::int64_t experts = 0, top_k = 0;
};

/// Tables for a terminal: losses by domain, specialisation by layer, and each domain's most frequent experts.
std::string evaluation_tables(const std::vector<DomainResult>& results, const EvaluationContext& context);

/// The losses of two checkpoints on the same text: that of `results`, of `others`, and how much more the
/// others lose, by domain and in the mean.
std::string comparison_table(const std::vector<DomainResult>& results,
                             const std::vector<DomainResult>& others);

/// {"domains": [{"domain", "lm_loss"}...], "mean_lm_loss"}: losses of `others` minus those of `results`.
nlohmann::ordered_json comparison_json(const std::vector<DomainResult>& results,
                                       const std::vector<DomainResult>& others);

/// What evaluation_tables() tells and all that is behind it: docs/specialisation.md names every key. NaN
/// becomes null.
nlohmann::ordered_json evaluation_json(const std::vector<DomainResult>& results,
                                       const EvaluationContext& context);

}  // namespace conclave
