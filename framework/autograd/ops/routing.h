// The ops of a mixture-of-experts layer that know no ranks: routing with its statistics, sorting rows by
// expert, and combining expert outputs.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "framework/autograd/tape.h"

namespace conclave {

/// NamedCounts are integers that a step between router and dispatcher leaves behind, by a name of its own.
struct NamedCounts {
  std::string name;
  Tensor values;  // int64 [any]
};

/// A NamedNumber is a number of a router itself, such as a learned temperature. It is the same on every rank
/// and in every micro-batch of a step.
struct NamedNumber {
  std::string name;
  Tensor value;  // float32 or float64 [1]
};

/// RouterStatistics are what objectives and reports need from a router, by packed sequence. Every scope of a
/// balance loss (sequence, group, micro-batch, global batch) can be had from them.
struct RouterStatistics {
  Tensor counts;              // int64 [sequences, experts]; assignments of real tokens, before any dropping
  Variable probability_sums;  // float64 [sequences, experts]; sum over real tokens of p_i
  Variable z_sum;             // float64 [1]; sum over real tokens of logsumexp^2
  Tensor chosen;              // int32 [tokens, top_k]; the assignments that were counted, -1 for padding
  std::int64_t first_token = 0;     // where these tokens begin in the micro-batch
  std::vector<NamedCounts> others;  // of methods, the same names on every rank
  Tensor probabilities;             // [tokens, experts]; Routing::probabilities, kept for evaluations only
  /// Of methods.
  std::vector<NamedNumber> numbers;

  /// The statistics that carry a gradient.
  std::array<Variable*, 2> variables() { return {&probability_sums, &z_sum}; }
};

struct Routing {
  Tensor experts;    // int32 [tokens, top_k]; -1: goes nowhere
  Variable weights;  // [tokens, top_k]
  RouterStatistics statistics;
  Tensor probabilities;  // [tokens, experts]; p_i before any renormalisation, which a capacity drops by
};

struct RouteOptions {
  std::int64_t top_k = 1;
  RouteRule rule;
  std::int64_t sequences = 1;    // of the micro-batch, all of one length
  std::int64_t length = 0;       // of a sequence; 0: the tokens divided evenly
  std::int64_t first_token = 0;  // where these tokens begin in the micro-batch
};

/// Computes scores over experts, then chooses the top_k largest, as the rule says. Only weights and
/// statistics carry gradients, the choice does not. A logit of -infinity bars its expert, and no gradient
/// reaches it. Where fewer than top_k experts are left, the last slots stay unused.
Routing route(Tape& tape, const Variable& logits,  // [tokens, experts]
              const Tensor& tokens,                // int32 [tokens]; -1: padding
              const RouteOptions& options);

/// As route(), with a choice that was made already. The rule says how the choice is weighed, and top_k is the
/// choice's. An unused slot of a token is -1, weighs 0 and is counted nowhere; the first slot of a real token
/// is used.
Routing weigh(Tape& tape, const Variable& logits,  // [tokens, experts]
              const Tensor& tokens,                // int32 [tokens]; -1: padding
              const Tensor& choice,                // int32 [tokens, slots]
              const RouteOptions& options);

/// One row for each assignment, sorted by expert.
Variable permute_rows(Tape& tape, const Variable& x,  // [tokens, hidden]
                      const RowOrder& order);         // -> [rows, hidden]

/// y[t] = sum over k of weights[t, k] rows[row of (t, k)]: routing weights are applied here and nowhere else.
Variable combine_rows(Tape& tape, const Variable& rows,  // [rows, hidden]
                      const Variable& weights,           // [tokens, top_k]
                      const RowOrder& order);            // -> [tokens, hidden]

/// y[t, j * times + i] = x[t, j] for i < times. An assignment that goes to several ranks so carries its
/// weight to each.
Variable repeat_columns(Tape& tape, const Variable& x,  // [rows, columns]
                        std::int64_t times);            // -> [rows, columns * times]

/// The scalar sum(factors * x) with constant factors, by which statistics become a loss.
Variable weighted_sum(Tape& tape, const Variable& x,  // float64, any shape
                      const Tensor& factors);         // float64, the same shape  ->  float64 [1]

}  // namespace conclave
