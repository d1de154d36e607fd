// Shards by hash; a full one begins anew, since frequent words come back soon.
#include "framework/data/tokenizer_json/word_cache.h"

namespace conclave {
namespace {

constexpr std::size_t longest_word = 64;  // bytes; longer ones rarely come again
constexpr std::size_t words_per_shard = 2048;

}  // namespace

WordCache::Shard& WordCache::shard_of(std::string_view word) {
  return shards_[(WordHash{}(word) >> 32) % shards_.size()];  // other bits than the map's
}

bool WordCache::find(std::string_view word, std::vector<std::int32_t>& tokens) {
  if (word.size() > longest_word) return false;
  Shard& shard = shard_of(word);
  const std::lock_guard lock(shard.mutex);
  const auto found = shard.words.find(word);
  if (found == shard.words.end()) return false;
  tokens.insert(tokens.end(), found->second.begin(), found->second.end());
  return true;
}

void WordCache::insert(std::string_view word, const std::vector<std::int32_t>& tokens) {
  if (word.size() > longest_word) return;
  Shard& shard = shard_of(word);
  const std::lock_guard lock(shard.mutex);
  if (shard.words.size() >= words_per_shard) shard.words.clear();
  shard.words.emplace(word, tokens);
}

}  // namespace conclave
