// The two ends of a language model: token embedding, and LM head with cross-entropy.
#pragma once

#include <functional>

#include "framework/autograd/tape.h"

namespace conclave {

Variable embedding(Tape& tape, const Tensor& tokens,  // int32 [tokens]; -1 (padding) gives a zero row
                   const Variable& weight);           // [vocabulary, hidden]  ->  [tokens, hidden]

/// Brings together the statistics [rows, 3] of Kernels::cross_entropy_statistics from the ranks that share a
/// vocabulary out. The result [parts * rows, 3] is in the order of these ranks.
using GatherStatistics = std::function<Tensor(const Tensor& statistics)>;

/// The objective holds loss_scale * (sum of token losses) + z_scale * (sum of squared log-sum-exp). So the
/// scales are 1 and a coefficient, over the target tokens of the step.
struct CrossEntropyOptions {
  double loss_scale = 1;
  double z_scale = 0;
  std::int64_t first_id = 0;  // the token id of the weight's first row
  std::int64_t parts = 1;     // of equal size, that the vocabulary is cut into
  GatherStatistics gather{};  // empty where this rank has all of it
};

struct CrossEntropy {
  Variable objective;  // float64 [1]: loss_scale * loss_sum + z_scale * z_sum
  Tensor sums;         // float64 [2], on the device of x: over targets of -log p(target), in nats, and of
                       // log_sum_exp^2
  /// The first of the sums; it waits for the device.
  double loss_sum() const { return sums.slice(0, 1).item(); }
};

/// LM head and cross-entropy in one op that holds the logits of a few hundred rows at a time. When the tape
/// records, each chunk's gradient products are done at once, while its logits are in cache. So nothing is
/// computed twice, and the gradient of the weight receives its part already here. Backward only passes on the
/// stored dx, and the objective must enter the loss with factor 1. The host waits for nothing.
CrossEntropy linear_cross_entropy(Tape& tape, const Variable& x,  // [tokens, hidden]
                                  const Variable& weight,         // [vocabulary of this rank, hidden]
                                  const Tensor& targets,          // int32 [tokens]; -1: not counted
                                  const CrossEntropyOptions& options);

}  // namespace conclave
