// safetensors is the file format of Hugging Face's weights. A file has 8 bytes with the length of a JSON
// header, the header (type, shape and place of every tensor), then the data. The data is row-major and
// without holes. A header is foreign bytes: any departure from the format is a Fault::data that names file
// and tensor. Data is read and written a part of a tensor at a time; it has no checksums. This code knows no
// models.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "framework/store/durable_file.h"
#include "framework/store/hdf5_file.h"

namespace conclave {

/// A tensor as the header has it.
struct SafeTensor {
  std::string name;
  std::string dtype;                 // "F32", "BF16", "F16", "F64", or another that is known by its size only
  Dims shape;                        // empty: a scalar
  std::uint64_t begin = 0, end = 0;  // of its bytes, counted from the end of the header
  bool operator==(const SafeTensor&) const = default;
};

/// The tensors of a header in the order of their bytes. `header` is the JSON, `data_bytes` the size of the
/// rest of the file. `file` stands in errors.
std::vector<SafeTensor> parse_safetensors_header(std::string_view header, std::uint64_t data_bytes,
                                                 const std::string& file);

class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const std::vector<SafeTensor>& tensors() const { return tensors_; }

  /// All elements of a tensor of this file as float32 or float64, row-major. Types that hold no real numbers
  /// are a Fault::data. bfloat16 and float16 widen exactly; float64 is rounded to float32.
  template <class T>
  void read(const SafeTensor& tensor, T* values) const {
    read(tensor, 0, element_count(tensor.shape), values);
  }
  /// The same of `count` elements, from the element `first` on.
  template <class T>
  void read(const SafeTensor& tensor, std::int64_t first, std::int64_t count, T* values) const;

 private:
  std::filesystem::path path_;
  mutable std::ifstream file_;
  std::uint64_t data_ = 0;  // where the data begins
  std::vector<SafeTensor> tensors_;
};

/// A tensor that a writer lays out: its name, type and shape. A list of them is in the order of the data.
struct SafeTensorPlan {
  std::string name;
  bool bfloat16 = false;  // else float32
  Dims shape;
  std::size_t bytes() const { return static_cast<std::size_t>(element_count(shape)) * (bfloat16 ? 2 : 4); }
};

/// Writes one file: the header at once, then the data as it comes.
class SafetensorsWriter {
 public:
  /// The names of the tensors must differ.
  SafetensorsWriter(const std::filesystem::path& path, const std::vector<SafeTensorPlan>& tensors);

  /// Writes the next elements of the data, of one tensor after another; rounded to bfloat16 where the plan
  /// says so.
  void write(const float* values, std::size_t count);
  /// Called after all data: returns once it is on the disk.
  void finish();

 private:
  DurableFile file_;
  std::vector<SafeTensorPlan> tensors_;
  std::size_t tensor_ = 0, written_ = 0;  // the tensor that is being written, and its elements so far
};

}  // namespace conclave
