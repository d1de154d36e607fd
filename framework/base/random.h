// Counter-based random numbers (Philox 4x32-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). A draw is a pure function of a key, which says what it is for, and of an index. So no layout,
// rank or thread count changes it, and no generator keeps a state.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "framework/base/host_device.h"

namespace conclave {

struct Philox4 {
  std::uint32_t word[4];
};

/// The ten-round Philox 4x32 bijection of a 128-bit counter under a 64-bit key.
HOST_DEVICE inline Philox4 philox(std::uint64_t key, std::uint64_t counter_low, std::uint64_t counter_high) {
  std::uint32_t key0 = static_cast<std::uint32_t>(key), key1 = static_cast<std::uint32_t>(key >> 32);
  Philox4 c{{static_cast<std::uint32_t>(counter_low), static_cast<std::uint32_t>(counter_low >> 32),
             static_cast<std::uint32_t>(counter_high), static_cast<std::uint32_t>(counter_high >> 32)}};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = 0xD2511F53ull * c.word[0], product1 = 0xCD9E8D57ull * c.word[2];
    c = Philox4{{static_cast<std::uint32_t>(product1 >> 32) ^ c.word[1] ^ key0,
                 static_cast<std::uint32_t>(product1),
                 static_cast<std::uint32_t>(product0 >> 32) ^ c.word[3] ^ key1,
                 static_cast<std::uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

/// A RandomKey says what a stream of draws is for. It is the run's seed, mixed with names and numbers, for
/// example RandomKey(seed).with("shuffle").with(domain).with(epoch).
class RandomKey {
 public:
  explicit RandomKey(std::uint64_t seed) : key_(mix(0x636f6e636c617665ull, seed)) {}

  RandomKey with(std::uint64_t number) const { return RandomKey(mix(key_, number), 0); }
  RandomKey with(std::string_view name) const {
    std::uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a
    for (const char letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3ull;
    return RandomKey(mix(key_, hash), 0);
  }

  std::uint64_t value() const { return key_; }

  /// 64 uniform bits.
  std::uint64_t bits(std::uint64_t index) const {
    const Philox4 draw = philox(key_, index, 0);
    return (static_cast<std::uint64_t>(draw.word[1]) << 32) | draw.word[0];
  }
  /// Uniform in (0, 1).
  double uniform(std::uint64_t index) const {
    return (static_cast<double>(bits(index) >> 11) + 0.5) * 0x1.0p-53;
  }
  /// Uniform in 0 .. bound-1; bound > 0. The bias is below bound / 2^64.
  std::uint64_t below(std::uint64_t index, std::uint64_t bound) const {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>((static_cast<Wide>(bits(index)) * bound) >> 64);
  }
  /// Standard normal (Box-Muller on one Philox block).
  double normal(std::uint64_t index) const {
    const Philox4 draw = philox(key_, index, 1);
    const double u = (static_cast<double>(draw.word[0]) + 0.5) * 0x1.0p-32;
    const double v = (static_cast<double>(draw.word[1]) + 0.5) * 0x1.0p-32;
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }
  /// A bijection of 0 .. size-1: a four-round Feistel network, walked until it lands inside the range.
  std::uint64_t permute(std::uint64_t index, std::uint64_t size) const;

 private:
  RandomKey(std::uint64_t key, int) : key_(key) {}
  static std::uint64_t mix(std::uint64_t key, std::uint64_t number) {
    const Philox4 draw = philox(key, number, 2);
    return (static_cast<std::uint64_t>(draw.word[3]) << 32) | draw.word[2];
  }
  std::uint64_t key_;
};

}  // namespace conclave
