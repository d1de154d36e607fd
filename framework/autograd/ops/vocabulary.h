// The two ends of a language model: token embedding, and LM head with cross-entropy.
#pragma once

#include "framework/autograd/tape.h"

namespace conclave {

Variable embedding(Tape& tape, const Tensor& tokens,  // int32 [tokens]; -1 (padding) gives a zero row
                   const Variable& weight);           // [vocabulary, hidden]  ->  [tokens, hidden]

struct CrossEntropyOptions {
  double loss_scale =
      1;  // the objective holds loss_scale * sum of token losses: 1 / (target tokens of the step)
  double z_scale =
      0;  // ... + z_scale * sum of squared log-sum-exp: coefficient / (target tokens of the step)
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
                                  const Variable& weight,         // [vocabulary, hidden]
                                  const Tensor& targets,          // int32 [tokens]; -1: not counted
                                  const CrossEntropyOptions& options);

}  // namespace conclave
