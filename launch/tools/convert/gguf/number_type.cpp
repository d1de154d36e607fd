#include "launch/tools/convert/gguf/number_type.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "framework/base/bfloat16.h"
#include "framework/base/error.h"

namespace conclave::gguf {
namespace {

struct TypeFacts {
  NumberType type;
  const char* dtype;
  std::uint32_t file_type;
  std::int64_t block, block_bytes;
};

constexpr std::array types = {
    TypeFacts{NumberType::f32, "fp32", 0, 1, 4}, TypeFacts{NumberType::bf16, "bf16", 32, 1, 2},
    TypeFacts{NumberType::f16, "fp16", 1, 1, 2}, TypeFacts{NumberType::q8_0, "q8_0", 7, q8_0_block, 34}};

const TypeFacts& facts_of(NumberType type) {
  return *std::find_if(types.begin(), types.end(),
                       [&](const TypeFacts& facts) { return facts.type == type; });
}

std::uint16_t finite_half(float value, NumberType type, const std::string& tensor) {
  const std::uint16_t half = to_half(value);
  check((half & 0x7FFFu) < 0x7C00u, Fault::numeric, tensor, " has the number ", value,
        ", which is too large for ", name_of(type), "; --dtype bf16 or fp32 can hold it.");
  return half;
}

/// One block: a factor in half precision, then 32 whole numbers. The factor that divides is not rounded.
void encode_block(const float* values, std::byte* block, const std::string& tensor) {
  float largest = 0;
  for (std::int64_t i = 0; i < q8_0_block; ++i) largest = std::max(largest, std::abs(values[i]));
  const float factor = largest / 127.0f, inverse = factor == 0 ? 0 : 1.0f / factor;
  const std::uint16_t half = finite_half(factor, NumberType::q8_0, tensor);
  std::memcpy(block, &half, sizeof half);
  for (std::int64_t i = 0; i < q8_0_block; ++i) {
    // A block of the tiniest numbers has no finite inverse; its factor is 0 in half precision anyway.
    const float scaled = std::isfinite(inverse) ? std::round(values[i] * inverse) : 0.0f;
    block[2 + i] = static_cast<std::byte>(static_cast<std::int8_t>(scaled));
  }
}

}  // namespace

NumberType number_type_named(const std::string& dtype) {
  const auto* found =
      std::find_if(types.begin(), types.end(), [&](const TypeFacts& facts) { return dtype == facts.dtype; });
  check(found != types.end(), Fault::request, "export: --dtype ", dtype,
        " came, expected fp32, bf16, fp16 or q8_0");
  return found->type;
}

const char* name_of(NumberType type) {
  return facts_of(type).dtype;
}

std::uint32_t file_type_of(NumberType type) {
  return facts_of(type).file_type;
}

std::uint64_t bytes_of(NumberType type, std::int64_t elements) {
  const TypeFacts& facts = facts_of(type);
  check(elements % facts.block == 0, "bytes_of: ", elements, " elements are no whole blocks of ",
        facts.block);
  return static_cast<std::uint64_t>(elements / facts.block * facts.block_bytes);
}

std::uint16_t to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<std::uint16_t>(sign | 0x7E00u);
  if (magnitude >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7C00u);  // 65536 and more
  const int exponent = static_cast<int>(magnitude >> 23) - 127;
  std::uint32_t digits = magnitude & 0x7FFFFFu, half = 0, dropped = 13;
  if (exponent >= -14) {
    half = static_cast<std::uint32_t>(exponent + 15) << 10 | digits >> 13;
  } else {  // a subnormal number, or zero
    if (exponent < -25) return static_cast<std::uint16_t>(sign);
    digits |= 0x800000u;
    dropped = static_cast<std::uint32_t>(-1 - exponent);
    half = digits >> dropped;
  }
  const std::uint32_t rest = digits & ((1u << dropped) - 1), middle = 1u << (dropped - 1);
  if (rest > middle || (rest == middle && (half & 1u) != 0)) ++half;  // perhaps into the next exponent
  return static_cast<std::uint16_t>(sign | half);
}

std::vector<std::byte> encode(const float* values, std::size_t count, NumberType type,
                              const std::string& tensor) {
  std::vector<std::byte> bytes(bytes_of(type, static_cast<std::int64_t>(count)));
  if (type == NumberType::f32) {
    std::memcpy(bytes.data(), values, bytes.size());
  } else if (type == NumberType::q8_0) {
    for (std::size_t block = 0; block < count / q8_0_block; ++block)
      encode_block(values + block * q8_0_block, bytes.data() + block * 34, tensor);
  } else {
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint16_t bits =
          type == NumberType::bf16 ? to_bfloat16(values[i]).bits : finite_half(values[i], type, tensor);
      std::memcpy(bytes.data() + i * sizeof bits, &bits, sizeof bits);
    }
  }
  return bytes;
}

}  // namespace conclave::gguf
