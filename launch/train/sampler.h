// Sampling the next token from a model's logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "framework/base/random.h"
#include "layers/transformer.h"

namespace conclave {

struct SamplingOptions {
  double temperature = 0.8;  // 0: always the most likely token
  std::int64_t top_k = 0;    // only the k most likely tokens; 0: all
  std::uint64_t seed = 1234;
};

/// Draws one token from logits [vocabulary]. Tokens from `vocabulary` on are never drawn, since a model may
/// have more rows than its tokenizer has tokens. `index` numbers the draws under one key.
std::int32_t sample(const std::vector<double>& logits, std::int64_t vocabulary,
                    const SamplingOptions& options, const RandomKey& key, std::uint64_t index);

/// Returns the logits of the token that follows `context`, of which the last `window` tokens are seen. All of
/// them are computed anew.
std::vector<double> next_token_logits(const Transformer& transformer, std::span<const std::int32_t> context,
                                      std::int64_t window);

/// Logits [rows, vocabulary] as numbers of the host, row by row.
std::vector<std::vector<double>> rows_to_host(const Tensor& logits);

}  // namespace conclave
