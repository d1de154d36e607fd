// The number types of tensors in a GGUF file, and how float32 becomes each of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "framework/store/hdf5_file.h"

namespace conclave::gguf {

/// The values are those of GGML's enumeration of types.
enum class NumberType : std::uint32_t { f32 = 0, f16 = 1, q8_0 = 8, bf16 = 30 };

/// Q8_0 keeps so many neighbours of a row as whole numbers of 8 bits with one factor.
constexpr std::int64_t q8_0_block = 32;

/// Returns the type that `--dtype` names: fp32, bf16, fp16 or q8_0. Throws Fault::request for any other text.
NumberType number_type_named(const std::string& dtype);
/// Returns the name that `--dtype` takes.
const char* name_of(NumberType type);
/// Returns the number by which general.file_type tells which type most of a file's tensors have.
std::uint32_t file_type_of(NumberType type);

/// Returns the bytes of so many elements; with Q8_0 they must be a multiple of a block.
std::uint64_t bytes_of(NumberType type, std::int64_t elements);

/// The nearest number of half precision, ties to the even one. Numbers beyond the largest become infinite.
std::uint16_t to_half(float value);

/// Converts whole rows. Types round to the nearest, ties to even; Q8_0 is what the package `gguf` computes.
/// Throws Fault::numeric, with the tensor's name in the sentence, where a number is too large for the type.
std::vector<std::byte> encode(const float* values, std::size_t count, NumberType type,
                              const std::string& tensor);

}  // namespace conclave::gguf
