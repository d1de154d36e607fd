// BytePairs is byte-pair encoding of one word (Sennrich et al. 2016, arXiv:1508.07909). Bytes, or characters
// with bytes for those that no token has, are joined pair by pair, the pair of the least rank first and the
// leftmost of equals, until no pair is in the table. Words that come again are answered from a cache. Dropout
// and prefixes of inner pieces are left out.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "framework/data/tokenizer_json/word_cache.h"

namespace conclave {

struct BytePairRules {
  struct Merge {
    std::int32_t left, right, joined;  // ids
  };
  std::unordered_map<std::string, std::int32_t> ids;  // of each token's bytes
  std::vector<Merge> merges;                          // the rank is the place; of equal pairs the last counts
  /// Of vocabularies of characters: the tokens of single bytes, <0x00> to <0xFF>. Empty: all tokens are of
  /// bytes.
  std::vector<std::int32_t> fallback;
  bool whole_words_first = false;  // a word that is a token is not joined from parts (`ignore_merges`)
};

class BytePairs {
 public:
  explicit BytePairs(BytePairRules rules);

  /// Appends the word's ids in O(n log n) of its bytes. Fault::data where a byte has no token. Safe to call
  /// from several threads.
  void encode(std::string_view word, std::vector<std::int32_t>& tokens) const;

 private:
  struct Joined {
    std::int32_t rank = -1, id = -1;  // -1: the pair is not joined
  };
  struct Slot {
    std::uint64_t pair = no_pair;
    Joined joined;
  };
  static constexpr std::uint64_t no_pair = ~std::uint64_t{0};

  void insert(const BytePairRules::Merge& merge, std::int32_t rank);
  Joined joined(std::int32_t left, std::int32_t right) const;
  std::vector<std::int32_t> merge(std::string_view word) const;
  /// The tokens of the word's bytes or characters, before any are joined.
  std::vector<std::int32_t> beginnings(std::string_view word) const;

  std::unordered_map<std::string, std::int32_t, WordHash, std::equal_to<>> words_;  // whole_words_first
  std::array<std::int32_t, 256> bytes_;
  bool of_characters_ = false;
  std::unordered_map<std::string, std::int32_t, WordHash, std::equal_to<>> characters_;
  std::vector<Slot> slots_;  // a power of two of them, at most half full
  mutable WordCache cache_;
};

}  // namespace conclave
