// A reader of GGUF files for tests, written apart from the writer: keys as JSON, tensors as float32.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace conclave::test {

struct GgufTensor {
  std::vector<std::int64_t> dims;  // the first varies fastest
  std::uint32_t type = 0;          // 0 F32, 1 F16, 8 Q8_0, 30 BF16
  std::string bytes;
};

inline float float_of_half(std::uint16_t half) {
  const int exponent = half >> 10 & 31;
  const float fraction = static_cast<float>(half & 1023);
  const float size = exponent == 0    ? std::ldexp(fraction, -24)
                     : exponent == 31 ? HUGE_VALF
                                      : std::ldexp(1024 + fraction, exponent - 25);
  return (half & 0x8000) != 0 ? -size : size;
}

class GgufReader {
 public:
  explicit GgufReader(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    EXPECT_EQ(take(4), "GGUF");
    EXPECT_EQ(number<std::uint32_t>(), 3u);
    const auto tensor_count = number<std::uint64_t>(), key_count = number<std::uint64_t>();
    for (std::uint64_t i = 0; i < key_count; ++i) {
      const std::string key = text();
      EXPECT_FALSE(keys.contains(key)) << key;
      keys[key] = value(number<std::uint32_t>());
    }
    std::vector<std::pair<std::string, std::uint64_t>> places;
    for (std::uint64_t i = 0; i < tensor_count; ++i) {
      places.emplace_back(text(), 0);
      GgufTensor& tensor = tensors[places.back().first];
      tensor.dims.resize(number<std::uint32_t>());
      for (std::int64_t& dim : tensor.dims) dim = number<std::int64_t>();
      tensor.type = number<std::uint32_t>();
      places.back().second = number<std::uint64_t>();
    }
    EXPECT_EQ(tensors.size(), tensor_count) << "each name once";
    const std::size_t data = (at_ + 31) / 32 * 32;
    std::size_t end = data;
    for (const auto& [name, place] : places) {
      GgufTensor& tensor = tensors[name];
      EXPECT_EQ(data + place, end) << name << " begins behind the one before";
      EXPECT_EQ(place % 32, 0u) << name;
      at_ = data + place;
      tensor.bytes = take(size_of(tensor));
      end = (at_ + 31) / 32 * 32;
    }
    EXPECT_EQ(bytes_.size(), end) << "the file ends with the last tensor";
  }

  /// The numbers of a tensor, the last dim of its shape varying fastest.
  std::vector<float> numbers(const std::string& name) const {
    const GgufTensor& tensor = tensors.at(name);
    const auto* raw = reinterpret_cast<const unsigned char*>(tensor.bytes.data());
    std::vector<float> all;
    const auto half_at = [&](std::size_t at) {
      return static_cast<std::uint16_t>(raw[at] | raw[at + 1] << 8);
    };
    if (tensor.type == 0) {
      all.resize(tensor.bytes.size() / 4);
      std::memcpy(all.data(), raw, tensor.bytes.size());
    } else if (tensor.type == 8) {
      for (std::size_t block = 0; block < tensor.bytes.size(); block += 34)
        for (std::size_t i = 0; i < 32; ++i)
          all.push_back(float_of_half(half_at(block)) *
                        static_cast<float>(static_cast<signed char>(raw[block + 2 + i])));
    } else {
      for (std::size_t at = 0; at < tensor.bytes.size(); at += 2) {
        float value = float_of_half(half_at(at));
        const std::uint32_t wide = static_cast<std::uint32_t>(half_at(at)) << 16;
        if (tensor.type == 30) std::memcpy(&value, &wide, 4);
        all.push_back(value);
      }
    }
    return all;
  }

  nlohmann::json keys = nlohmann::json::object();
  std::map<std::string, GgufTensor> tensors;

 private:
  static std::size_t size_of(const GgufTensor& tensor) {
    std::size_t elements = 1;
    for (const std::int64_t dim : tensor.dims) elements *= static_cast<std::size_t>(dim);
    EXPECT_TRUE(tensor.type == 0 || tensor.type == 1 || tensor.type == 8 || tensor.type == 30);
    EXPECT_TRUE(tensor.type != 8 || tensor.dims.at(0) % 32 == 0);
    return tensor.type == 0 ? elements * 4 : tensor.type == 8 ? elements / 32 * 34 : elements * 2;
  }
  std::string take(std::size_t count) {
    if (count > bytes_.size() - at_) throw std::runtime_error("the file ends too early");
    at_ += count;
    return bytes_.substr(at_ - count, count);
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string text() { return take(number<std::uint64_t>()); }
  nlohmann::json value(std::uint32_t type) {
    switch (type) {
      case 4:
        return number<std::uint32_t>();
      case 5:
        return number<std::int32_t>();
      case 6:
        return number<float>();
      case 7:
        return number<std::uint8_t>() != 0;
      case 8:
        return text();
      case 9: {
        const auto inner = number<std::uint32_t>();
        nlohmann::json list = nlohmann::json::array();
        for (auto left = number<std::uint64_t>(); left > 0; --left) list.push_back(value(inner));
        return list;
      }
      default:
        throw std::runtime_error("a value of an unknown type");
    }
  }

  std::string bytes_;
  std::size_t at_ = 0;
};

}  // namespace conclave::test
