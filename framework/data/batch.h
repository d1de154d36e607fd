// A Batch is one micro-batch of packed sequences as plain host arrays. Code in data/ hands it to all code
// above.
#pragma once

#include <cstdint>
#include <vector>

namespace conclave {

/// Where a training sequence comes from.
struct DrawnSequence {
  std::int32_t dataset = 0;   // index into data.train
  std::int64_t draw = 0;      // this is the dataset's so many-th draw of the run, from 0
  std::int64_t sequence = 0;  // of its token file
  bool operator==(const DrawnSequence&) const = default;
};

struct Batch {
  std::int64_t sequences = 0;
  std::int64_t length = 0;
  std::vector<std::int32_t> tokens;          // [sequences, length]; -1: padding, counted nowhere
  std::vector<std::int32_t> targets;         // [sequences, length]; the next token; -1: no target
  std::vector<std::int32_t> document_start;  // [sequences, length]; column where this token's document begins
  std::vector<std::int32_t> domain;          // [sequences]; index into the recipe's list of domains
  std::vector<DrawnSequence> drawn;          // [sequences] of training data; empty: of something else

  std::int64_t real_tokens() const {
    std::int64_t count = 0;
    for (const std::int32_t token : tokens) count += token >= 0;
    return count;
  }
  std::int64_t target_tokens() const {
    std::int64_t count = 0;
    for (const std::int32_t target : targets) count += target >= 0;
    return count;
  }
};

}  // namespace conclave
