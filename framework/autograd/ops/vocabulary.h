// The two ends of a language model: token embedding, and LM head with cross-entropy.
#pragma once

#include <functional>

#include "framework/autograd/tape.h"

namespace conclave {

Variable embedding(Tape& tape, const Tensor& tokens,  // int32 [tokens]; -1 (padding) gives a zero row
                   const Variable& weight);           // [vocabulary, hidden]  ->  [tokens, hidden]

/// Joins the statistics [rows, 3] of Kernels::cross_entropy_statistics over the ranks that share a vocabulary
/// out, in place: the largest logit of all, the sum relative to it, the target's logit. Empty where this rank
/// has all of it.
using JoinStatistics = std::function<void(const Tensor& statistics)>;

/// The objective holds loss_scale * (sum of token losses) + z_scale * (sum of squared log-sum-exp), so the
/// scales are 1 and a coefficient, over the target tokens of the step.
struct CrossEntropyOptions {
  double loss_scale = 1;
  double z_scale = 0;
  std::int64_t first_id = 0;  // the token id of the weight's first row
  JoinStatistics join{};
};

struct CrossEntropy {
  Variable objective;  // float64 [1]: loss_scale * loss_sum + z_scale * z_sum
  double loss_sum;     // sum over targets of -log p(target), nats
  double z_sum;        // sum over targets of log_sum_exp^2
};

/// LM head and cross-entropy in one op that holds the logits of a few hundred rows at a time. When the tape
/// records, each chunk's gradient products are done at once, while its logits are in cache: nothing is
/// computed twice. So the gradient of the weight receives its part already here; backward only passes on the
/// stored dx, and the objective must enter the loss with factor 1.
CrossEntropy linear_cross_entropy(Tape& tape, const Variable& x,  // [tokens, hidden]
                                  const Variable& weight,         // [vocabulary of this rank, hidden]
                                  const Tensor& targets,          // int32 [tokens]; -1: not counted
                                  const CrossEntropyOptions& options);

}  // namespace conclave
