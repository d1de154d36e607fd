#include "launch/tools/convert/gguf/file.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "framework/base/error.h"

namespace conclave::gguf {
namespace {

constexpr std::uint64_t alignment = 32;   // what readers take where general.alignment is not there
constexpr std::size_t longest_name = 63;  // of a tensor, in llama.cpp

/// Elements, whole blocks of every type, so that a matrix is not in memory twice.
constexpr std::size_t converted_at_once = std::size_t{1} << 20;

/// The format's numbers for the types of values.
enum ValueType : std::uint32_t {
  uint32_value = 4,
  int32_value = 5,
  float32_value = 6,
  bool_value = 7,
  string_value = 8,
  array_value = 9
};

/// Numbers stand in the byte order of the machines that Conclave runs on, which is the format's.
template <class T>
void put(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_text(std::string& bytes, std::string_view text) {
  put(bytes, static_cast<std::uint64_t>(text.size()));
  bytes += text;
}

std::uint64_t padding_behind(std::uint64_t bytes) {
  return (alignment - bytes % alignment) % alignment;
}

/// All that stands in front of the data.
std::string head_of(const KeyValues& keys, const std::vector<TensorPlan>& tensors) {
  std::string bytes = "GGUF";
  put<std::uint32_t>(bytes, 3);
  put<std::uint64_t>(bytes, tensors.size());
  put<std::uint64_t>(bytes, keys.count());
  bytes += keys.bytes();
  std::uint64_t at = 0;
  for (const TensorPlan& tensor : tensors) {
    put_text(bytes, tensor.name);
    put(bytes, static_cast<std::uint32_t>(tensor.shape.size()));
    for (std::size_t i = tensor.shape.size(); i-- > 0;)
      put(bytes, static_cast<std::uint64_t>(tensor.shape[i]));
    put(bytes, static_cast<std::uint32_t>(tensor.type));
    put(bytes, at);
    at += tensor.bytes() + padding_behind(tensor.bytes());
  }
  bytes.append(padding_behind(bytes.size()), '\0');
  return bytes;
}

}  // namespace

void KeyValues::begin(const std::string& key, std::uint32_t type) {
  ++count_;
  put_text(bytes_, key);
  put(bytes_, type);
}

void KeyValues::begin_array(const std::string& key, std::uint32_t type, std::size_t count) {
  begin(key, array_value);
  put(bytes_, type);
  put(bytes_, static_cast<std::uint64_t>(count));
}

void KeyValues::add(const std::string& key, std::uint32_t value) {
  begin(key, uint32_value);
  put(bytes_, value);
}

void KeyValues::add(const std::string& key, float value) {
  begin(key, float32_value);
  put(bytes_, value);
}

void KeyValues::add(const std::string& key, bool value) {
  begin(key, bool_value);
  put(bytes_, static_cast<std::uint8_t>(value));
}

void KeyValues::add(const std::string& key, const std::string& value) {
  begin(key, string_value);
  put_text(bytes_, value);
}

void KeyValues::add(const std::string& key, const std::vector<std::int32_t>& values) {
  begin_array(key, int32_value, values.size());
  for (const std::int32_t value : values) put(bytes_, value);
}

void KeyValues::add(const std::string& key, const std::vector<float>& values) {
  begin_array(key, float32_value, values.size());
  for (const float value : values) put(bytes_, value);
}

void KeyValues::add(const std::string& key, const std::vector<std::string>& values) {
  begin_array(key, string_value, values.size());
  for (const std::string& value : values) put_text(bytes_, value);
}

FileWriter::FileWriter(const std::filesystem::path& path, const KeyValues& keys,
                       std::vector<TensorPlan> tensors)
    : file_(path), tensors_(std::move(tensors)) {
  std::set<std::string> names;
  for (const TensorPlan& tensor : tensors_) {
    check(names.insert(tensor.name).second, "gguf::FileWriter: ", tensor.name, " came twice");
    check(tensor.name.size() <= longest_name, "gguf::FileWriter: the name ", tensor.name, " is too long");
  }
  const std::string head = head_of(keys, tensors_);
  file_.write(head.data(), head.size());
}

void FileWriter::pad(std::uint64_t bytes) {
  const std::array<char, alignment> zeros{};
  file_.write(zeros.data(), bytes);
}

void FileWriter::write(const float* values, std::size_t count) {
  check(tensor_ < tensors_.size(), "gguf::FileWriter: more elements came than were planned");
  const TensorPlan& tensor = tensors_[tensor_];
  const auto all = static_cast<std::uint64_t>(element_count(tensor.shape));
  check(written_ + count <= all, "gguf::FileWriter: more elements of ", tensor.name,
        " came than were planned");
  for (std::size_t done = 0; done < count; done += converted_at_once) {
    const std::vector<std::byte> bytes =
        encode(values + done, std::min(converted_at_once, count - done), tensor.type, tensor.name);
    file_.write(bytes.data(), bytes.size());
  }
  written_ += count;
  if (written_ < all) return;
  pad(padding_behind(tensor.bytes()));
  ++tensor_;
  written_ = 0;
  file_.begin_sync();
}

void FileWriter::finish() {
  check(tensor_ == tensors_.size(), "gguf::FileWriter: ", tensors_.size() - tensor_,
        " tensors have not been written");
  file_.sync();
}

std::uint64_t file_bytes(const KeyValues& keys, const std::vector<TensorPlan>& tensors) {
  std::uint64_t bytes = head_of(keys, tensors).size();
  for (const TensorPlan& tensor : tensors) bytes += tensor.bytes() + padding_behind(tensor.bytes());
  return bytes;
}

}  // namespace conclave::gguf
