// Decoder: the logits of the next token of several texts that grow together. What attention keeps of a text's
// tokens is computed once, as long as the text fits the window that the model was trained with.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "layers/transformer.h"

namespace conclave {

/// Whether what was computed for a text's tokens is kept for its next ones.
enum class Cache { on, off };

class Decoder {
 public:
  /// `longest`: the most tokens that each text comes with; the cache needs no more than a window of them. It
  /// takes its memory here.
  Decoder(const Transformer& transformer, std::int64_t window, std::span<const std::int64_t> longest,
          Cache cache);
  /// The bytes of the cache.
  static std::size_t cache_bytes(const Transformer& transformer, std::int64_t window,
                                 std::span<const std::int64_t> longest);

  /// All tokens so far of text number `text`, at least one; more tokens than the last time, behind the same
  /// ones.
  struct Context {
    std::size_t text;
    std::span<const std::int32_t> tokens;
  };
  /// The logits of the token that follows each, [vocabulary]. The model sees the last `window` tokens. In a
  /// longer text each token has another position than before, so the window is computed anew, without the
  /// cache.
  std::vector<std::vector<double>> next_logits(std::span<const Context> contexts);

 private:
  const Transformer& transformer_;
  std::int64_t window_;
  std::vector<std::optional<SequenceState>> states_;  // none for a text that is computed anew
};

}  // namespace conclave
