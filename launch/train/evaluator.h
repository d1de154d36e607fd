// Validation: the mean loss of each domain's held-out text, which experts its tokens chose, and how sharply.
// The sequences that are evaluated do not depend on the number of ranks.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "framework/data/dataset.h"
#include "layers/transformer.h"
#include "parallel/mesh.h"

namespace conclave {

struct DomainResult {
  std::string domain;
  std::int64_t target_tokens = 0;
  double lm_loss = 0;                       // mean over target tokens, nats; NaN where there is none
  std::vector<std::int64_t> expert_counts;  // [layers, experts]; assignments
  std::int64_t tokens = 0;                  // input tokens without padding, over which the means below go
  std::vector<double>
      mean_probability{};           // [layers, experts]; of p, the router's probability (docs/balance.md)
  std::vector<double> score_sum{};  // [layers]; mean of the sum of the chosen experts' p
  std::vector<double> entropy{};    // [layers]; mean of -sum_i p_i log p_i, nats
};

struct EvaluationOptions {
  std::int64_t most_sequences = 0;    // per domain; 0: the whole text
  std::int64_t micro_batch_size = 4;  // sequences
  std::int64_t experts = 0;
};

/// Returns one result per domain of the validation list, all of its files together, equal on all ranks.
/// Collective.
std::vector<DomainResult> evaluate(const Transformer& transformer, const ValidationData& validation,
                                   const EvaluationOptions& options, const Mesh& mesh);

/// Does the same, but breaks off between two micro-batches when `stop` says so, and then returns nothing. All
/// ranks call `stop` together, and it has the same answer on all.
std::optional<std::vector<DomainResult>> evaluate_unless(const std::function<bool()>& stop,
                                                         const Transformer& transformer,
                                                         const ValidationData& validation,
                                                         const EvaluationOptions& options, const Mesh& mesh);

/// Returns the mean of the losses of all domains that have a target, each counted once; NaN where none has.
double mean_over_domains(const std::vector<DomainResult>& results);

/// Returns a sentence that names the domains that have targets and no finite loss; empty where all losses are
/// finite.
std::string domains_not_finite(const std::vector<DomainResult>& results);

/// Returns a sentence that names the domains that the mean leaves out; empty where it has all of them.
std::string domains_without_targets(const std::vector<DomainResult>& results);

}  // namespace conclave
