// The container GGUF, version 3, as llama.cpp reads it. A file has the keys with their values, then the name,
// shape, type and place of every tensor, then the data. This code knows no models.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "framework/store/durable_file.h"
#include "framework/store/hdf5_file.h"
#include "launch/tools/convert/gguf/number_type.h"

namespace conclave::gguf {

/// Keys and values in the order in which they are added. A key may come once.
class KeyValues {
 public:
  void add(const std::string& key, std::uint32_t value);
  void add(const std::string& key, float value);
  void add(const std::string& key, bool value);
  void add(const std::string& key, const std::string& value);
  void add(const std::string& key, const char* value) { add(key, std::string(value)); }
  void add(const std::string& key, const std::vector<std::int32_t>& values);
  void add(const std::string& key, const std::vector<float>& values);
  void add(const std::string& key, const std::vector<std::string>& values);

  std::uint64_t count() const { return count_; }
  /// They as the file has them.
  const std::string& bytes() const { return bytes_; }

 private:
  void begin(const std::string& key, std::uint32_t type);
  void begin_array(const std::string& key, std::uint32_t type, std::size_t count);

  std::uint64_t count_ = 0;
  std::string bytes_;
};

/// A tensor that a writer lays out. A list of them is in the order of the data.
struct TensorPlan {
  std::string name;
  Dims shape;  // the last dim varies fastest
  NumberType type = NumberType::f32;
  std::uint64_t bytes() const { return bytes_of(type, element_count(shape)); }
};

/// Writes one file: all but the data at once, then the data as it comes.
class FileWriter {
 public:
  /// The names of the tensors must differ.
  FileWriter(const std::filesystem::path& path, const KeyValues& keys, std::vector<TensorPlan> tensors);

  /// Writes the next whole rows of the tensor whose turn it is, converted to its type.
  void write(const float* values, std::size_t count);
  /// Called after all data: returns once it is on the disk.
  void finish();

 private:
  void pad(std::uint64_t bytes);

  DurableFile file_;
  std::vector<TensorPlan> tensors_;
  std::size_t tensor_ = 0;     // whose data is being written
  std::uint64_t written_ = 0;  // elements of it so far
};

/// Returns how large the file will be, so that the disk can be asked first.
std::uint64_t file_bytes(const KeyValues& keys, const std::vector<TensorPlan>& tensors);

}  // namespace conclave::gguf
