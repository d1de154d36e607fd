// WordCache: the ids of words that were encoded before. Bounded, and shared by all threads.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace conclave {

struct WordHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view word) const { return std::hash<std::string_view>{}(word); }
};

class WordCache {
 public:
  /// Appends the ids of the word and says true, or false when it is not there.
  bool find(std::string_view word, std::vector<std::int32_t>& tokens);
  void insert(std::string_view word, const std::vector<std::int32_t>& tokens);

 private:
  /// Threads rarely meet at one of so many locks.
  struct Shard {
    std::mutex mutex;
    std::unordered_map<std::string, std::vector<std::int32_t>, WordHash, std::equal_to<>> words;
  };
  Shard& shard_of(std::string_view word);

  std::array<Shard, 64> shards_;
};

}  // namespace conclave
