// The merge loop is that of the library `tokenizers`: a heap of pairs, in which outdated ones stay until they
// come up.
#include "framework/data/tokenizer_json/byte_pairs.h"

#include <algorithm>
#include <bit>

#include "framework/base/error.h"

namespace conclave {
namespace {

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

std::size_t hash_of(std::uint64_t pair) {
  pair *= 0x9E3779B97F4A7C15ull;  // Fibonacci hashing: the high bits are well mixed
  return static_cast<std::size_t>(pair ^ pair >> 32);
}

struct Symbol {
  std::int32_t id;
  std::int32_t before, after;  // places of its neighbours; -1: none
};

struct Candidate {
  std::int32_t rank, place, id;
  /// For a heap whose top is the least rank, and of equal ranks the leftmost place.
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : place > other.place;
  }
};

constexpr std::int32_t merged_away = -1;  // an id

/// Bytes of the character at `place`, by its first byte; at most those that are there.
std::size_t length_of_character(std::string_view text, std::size_t place) {
  const auto first = static_cast<unsigned char>(text[place]);
  const std::size_t length = first < 0xC0 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  return std::min(length, text.size() - place);
}

}  // namespace

BytePairs::BytePairs(BytePairRules rules) {
  bytes_.fill(-1);
  of_characters_ = !rules.fallback.empty();
  if (of_characters_) {
    std::copy(rules.fallback.begin(), rules.fallback.end(), bytes_.begin());
    for (const auto& [token, id] : rules.ids)
      if (token.size() <= 4 && length_of_character(token, 0) == token.size()) characters_.emplace(token, id);
  } else {
    for (const auto& [token, id] : rules.ids)
      if (token.size() == 1) bytes_[static_cast<unsigned char>(token[0])] = id;
  }
  slots_.resize(std::bit_ceil(2 * rules.merges.size() + 2));
  for (std::size_t rank = 0; rank < rules.merges.size(); ++rank)
    insert(rules.merges[rank], static_cast<std::int32_t>(rank));
  if (rules.whole_words_first) words_.insert(rules.ids.begin(), rules.ids.end());
}

void BytePairs::insert(const BytePairRules::Merge& merge, std::int32_t rank) {
  const std::uint64_t pair = pair_of(merge.left, merge.right);
  std::size_t at = hash_of(pair) & (slots_.size() - 1);
  while (slots_[at].pair != no_pair && slots_[at].pair != pair) at = (at + 1) & (slots_.size() - 1);
  slots_[at] = {pair, {rank, merge.joined}};
}

BytePairs::Joined BytePairs::joined(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = pair_of(left, right);
  std::size_t at = hash_of(pair) & (slots_.size() - 1);
  while (slots_[at].pair != no_pair && slots_[at].pair != pair) at = (at + 1) & (slots_.size() - 1);
  return slots_[at].joined;
}

std::vector<std::int32_t> BytePairs::beginnings(std::string_view word) const {
  std::vector<std::int32_t> ids;
  ids.reserve(word.size());
  for (std::size_t i = 0; i < word.size();) {
    const std::size_t length = of_characters_ ? length_of_character(word, i) : 1;
    if (of_characters_) {
      if (const auto found = characters_.find(word.substr(i, length)); found != characters_.end()) {
        ids.push_back(found->second);
        i += length;
        continue;
      }
    }
    for (const std::size_t end = i + length; i < end; ++i) {
      const auto byte = static_cast<unsigned char>(word[i]);
      check(bytes_[byte] >= 0, Fault::data, "the tokenizer's vocabulary has no token for the byte ",
            static_cast<int>(byte), ", so that text with it cannot be encoded");
      ids.push_back(bytes_[byte]);
    }
  }
  return ids;
}

std::vector<std::int32_t> BytePairs::merge(std::string_view word) const {
  const std::vector<std::int32_t> ids = beginnings(word);
  const auto count = static_cast<std::int32_t>(ids.size());
  std::vector<Symbol> symbols(ids.size());
  for (std::int32_t i = 0; i < count; ++i)
    symbols[static_cast<std::size_t>(i)] = {ids[static_cast<std::size_t>(i)], i - 1,
                                            i + 1 < count ? i + 1 : -1};
  const auto at = [&](std::int32_t place) -> Symbol& { return symbols[static_cast<std::size_t>(place)]; };

  std::vector<Candidate> heap;
  const auto candidate = [&](std::int32_t left, std::int32_t right) {
    const Joined pair = joined(at(left).id, at(right).id);
    if (pair.rank >= 0) heap.push_back({pair.rank, left, pair.id});
    return pair.rank >= 0;
  };
  for (std::int32_t i = 0; i + 1 < count; ++i) candidate(i, i + 1);
  std::make_heap(heap.begin(), heap.end());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate top = heap.back();
    heap.pop_back();
    Symbol& left = at(top.place);
    if (left.id == merged_away || left.after < 0) continue;
    Symbol& right = at(left.after);
    if (joined(left.id, right.id).id != top.id) continue;  // one of the two has changed since
    left.id = top.id;
    right.id = merged_away;
    left.after = right.after;
    if (left.after >= 0) at(left.after).before = top.place;
    if (left.before >= 0 && candidate(left.before, top.place)) std::push_heap(heap.begin(), heap.end());
    if (left.after >= 0 && candidate(top.place, left.after)) std::push_heap(heap.begin(), heap.end());
  }

  std::vector<std::int32_t> tokens;
  for (const Symbol& symbol : symbols)
    if (symbol.id != merged_away) tokens.push_back(symbol.id);
  return tokens;
}

void BytePairs::encode(std::string_view word, std::vector<std::int32_t>& tokens) const {
  if (const auto whole = words_.find(word); whole != words_.end()) return tokens.push_back(whole->second);
  if (cache_.find(word, tokens)) return;
  const std::vector<std::int32_t> pieces = merge(word);
  cache_.insert(word, pieces);
  tokens.insert(tokens.end(), pieces.begin(), pieces.end());
}

}  // namespace conclave
