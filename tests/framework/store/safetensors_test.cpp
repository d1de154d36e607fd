// safetensors: what is written is read, every type widens as it should, and headers that are wrong in any way
// are a sentence.
#include "framework/store/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "framework/base/bfloat16.h"
#include "tests/framework/store/scratch_directory.h"

namespace conclave {
namespace {

std::string content_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A file with this header and so much data behind it.
std::filesystem::path file_with(const ScratchDirectory& scratch, const std::string& header,
                                const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
  const auto path = scratch.path() / "file.safetensors";
  std::ofstream(path, std::ios::binary) << bytes + header + data;
  return path;
}

TEST(Safetensors, WhatIsWrittenIsRead) {
  const ScratchDirectory scratch;
  const auto path = scratch.path() / "model.safetensors";
  const std::vector<float> a{1.5f, -2.25f, 3e-30f, 1e30f, 0.1f, -0.0f}, b{0.1f, 1.0f / 3, -7};
  {
    SafetensorsWriter writer(
        path, {{"a", false, {2, 3}}, {"none", false, {0, 3}}, {"b", true, {3}}, {"end", true, {0}}});
    writer.write(a.data(), 2);  // data may come in any parts
    writer.write(a.data() + 2, 4);
    writer.write(b.data(), 3);
    writer.finish();
  }
  const std::string bytes = content_of(path);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  EXPECT_EQ(length % 8, 0u);
  EXPECT_EQ(bytes.size(), 8 + length + 6 * 4 + 3 * 2);
  EXPECT_EQ(bytes.substr(8, 32), R"({"__metadata__":{"format":"pt"},)");

  const SafetensorsReader reader(path);
  ASSERT_EQ(reader.tensors().size(), 4u);
  std::map<std::string, SafeTensor> tensors;
  for (const SafeTensor& tensor : reader.tensors()) tensors[tensor.name] = tensor;
  EXPECT_EQ(tensors["a"].shape, (Dims{2, 3}));
  EXPECT_EQ(tensors["none"].shape, (Dims{0, 3}));
  EXPECT_EQ(tensors["b"].dtype, "BF16");
  std::vector<float> read(6);
  reader.read(tensors["a"], read.data());
  EXPECT_EQ(std::memcmp(read.data(), a.data(), 24), 0);
  std::vector<double> rounded(3);
  reader.read(tensors["b"], rounded.data());
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(rounded[i], to_float(to_bfloat16(b[i])));
}

TEST(Safetensors, EveryTypeWidens) {
  const ScratchDirectory scratch;
  // float16: 1, -2, the largest, the smallest normal and subnormal, 1/3, infinity, -0.
  const std::vector<std::uint16_t> half{0x3C00, 0xC000, 0x7BFF, 0x0400, 0x0001, 0x3555, 0x7C00, 0x8000};
  const std::vector<float> expected{
      1, -2, 65504, 0x1.0p-14f, 0x1.0p-24f, 0.33325195f, std::numeric_limits<float>::infinity(), -0.0f};
  const std::vector<double> wide{0.1, -1e300};
  std::string data(reinterpret_cast<const char*>(half.data()), 16);
  data.append(reinterpret_cast<const char*>(wide.data()), 16);
  const SafetensorsReader reader(file_with(scratch,
                                           R"({"h":{"dtype":"F16","shape":[8],"data_offsets":[0,16]},)"
                                           R"("d":{"dtype":"F64","shape":[2],"data_offsets":[16,32]}}  )",
                                           data));
  std::vector<float> values(8);
  reader.read(reader.tensors()[0], values.data());
  EXPECT_EQ(values, expected);
  EXPECT_TRUE(std::signbit(values[7]));
  std::vector<double> doubles(2);
  reader.read(reader.tensors()[1], doubles.data());
  EXPECT_EQ(doubles, wide);
  reader.read(reader.tensors()[1], values.data());
  EXPECT_EQ(values[0], 0.1f);
}

TEST(Safetensors, APartOfATensorIsReadAlone) {
  const ScratchDirectory scratch;
  const auto path = scratch.path() / "parts.safetensors";
  std::vector<float> values(1 << 19);  // more bytes than are read at once
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 251);
  SafetensorsWriter writer(path, {{"before", false, {3}}, {"wide", false, {512, 1024}}, {"half", true, {8}}});
  writer.write(values.data(), 3);
  writer.write(values.data(), values.size());
  writer.write(values.data(), 8);
  writer.finish();
  const SafetensorsReader reader(path);
  const SafeTensor &wide = reader.tensors()[1], &half = reader.tensors()[2];
  for (const auto& [first, count] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {0, 5}, {1000, 400'000}, {524'287, 1}, {524'288, 0}}) {
    std::vector<float> part(static_cast<std::size_t>(count) + 1, -1);
    reader.read(wide, first, count, part.data());
    EXPECT_TRUE(std::equal(part.begin(), part.end() - 1, values.begin() + first)) << first;
    EXPECT_EQ(part.back(), -1) << "no more than was wanted";
  }
  std::vector<double> part(3);
  reader.read(half, 4, 3, part.data());
  EXPECT_EQ(part, (std::vector<double>{4, 5, 6}));
  EXPECT_THROW(reader.read(half, 6, 3, part.data()), Error) << "which is the next tensor's";
  EXPECT_THROW(reader.read(wide, -1, 1, part.data()), Error);
}

TEST(Safetensors, AWrongHeaderIsASentence) {
  struct Wrong {
    std::string header;
    std::vector<std::string> words;
  };
  const std::string good = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  const std::string deep(200000, '[');  // deeper than a recursive writer has stack for
  const std::vector<Wrong> table = {
      {R"({"a":{"dtype":"F32","data_offsets":[0,8],"shape":[)" + deep + std::string(200000, ']') + "]}}",
       {"a list", "whole number"}},
      {"", {"header", "safetensors"}},
      {"[]", {"an object is expected"}},
      {"{" + good, {"header"}},
      {"{" + good + "," + good + "}", {"\"a\" is there twice"}},
      {R"({"a":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}})",
       {"\"dtype\" is there twice"}},
      {R"({"a":3})", {"\"a\"", "has no dtype, shape and data_offsets"}},
      {R"({"a":{"dtype":"F32","shape":[2]}})", {"has no dtype"}},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", {"data_offsets"}},
      {R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", {"unknown type \"F31\""}},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", {"-2", "whole number"}},
      {R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", {"2.0", "whole number"}},
      {R"({"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}})", {"whole number"}},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", {"[3] takes 12 bytes, but has 8"}},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", {"64 bits"}},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})", {"bytes 0 to 12 of 8"}},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", {"bytes 8 to 0"}},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", {"take 4 bytes, but 8 follow"}},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", {"begins at byte 4, expected 0"}},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       {"begins at byte 4, expected 8"}},
      {"{}", {"take 0 bytes, but 8 follow"}},
      {"{\"a\xff\":1}", {"header"}},
  };
  const ScratchDirectory scratch;
  EXPECT_EQ(SafetensorsReader(file_with(scratch, "{" + good + "}", "12345678")).tensors().size(), 1u);
  for (const Wrong& wrong : table) {
    const auto path = file_with(scratch, wrong.header, "12345678");
    const std::string sentence = sentence_of(Fault::data, [&] { const SafetensorsReader reader(path); });
    expect_words(sentence, {"file.safetensors"});
    expect_words(sentence, wrong.words);
  }
}

TEST(Safetensors, ALengthBeyondTheFileIsASentence) {
  const ScratchDirectory scratch;
  for (const std::uint64_t length : {std::uint64_t{3}, std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
    std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
    const auto path = scratch.path() / "file.safetensors";
    std::ofstream(path, std::ios::binary) << bytes + "{}";
    expect_words(sentence_of(Fault::data, [&] { const SafetensorsReader reader(path); }), {"header"});
  }
  std::ofstream(scratch.path() / "short", std::ios::binary) << "1234";
  sentence_of(Fault::data, [&] { const SafetensorsReader reader(scratch.path() / "short"); });
  sentence_of(Fault::data, [&] { const SafetensorsReader reader(scratch.path() / "missing"); });
}

TEST(Safetensors, OtherTypesAreListedAndNotRead) {
  const ScratchDirectory scratch;
  const SafetensorsReader reader(
      file_with(scratch, R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", "12345678"));
  float value = 0;
  expect_words(sentence_of(Fault::data, [&] { reader.read(reader.tensors()[0], &value); }),
               {"a is of type I64", "F32, BF16, F16 or F64"});
}

}  // namespace
}  // namespace conclave
