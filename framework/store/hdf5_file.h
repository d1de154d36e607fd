// Hdf5File is one HDF5 file, opened, read and written through plain pointers, dims and an ElementType. So it
// knows neither tensors nor checkpoints. Every return code of the library is checked; a failure names file
// and object in one sentence with HDF5's innermost reason. It leaves atomicity to durable_file.h and
// checksums to the checkpoint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "framework/store/box.h"

namespace conclave {

enum class ElementType { float32, float64, int32, int64, uint8 };

std::size_t element_bytes(ElementType type);
const char* element_name(ElementType type);

/// ElementType of a C++ type, for templates that take typed pointers.
template <class T>
struct ElementTypeOf;
template <>
struct ElementTypeOf<float> {
  static constexpr ElementType value = ElementType::float32;
};
template <>
struct ElementTypeOf<double> {
  static constexpr ElementType value = ElementType::float64;
};
template <>
struct ElementTypeOf<std::int32_t> {
  static constexpr ElementType value = ElementType::int32;
};
template <>
struct ElementTypeOf<std::int64_t> {
  static constexpr ElementType value = ElementType::int64;
};
template <>
struct ElementTypeOf<std::uint8_t> {
  static constexpr ElementType value = ElementType::uint8;
};

using Dims = std::vector<std::int64_t>;  // row-major; empty: a scalar

std::int64_t element_count(const Dims& dims);
std::string dims_text(const Dims& dims);  // [2, 3]

struct DatasetInfo {
  ElementType type = ElementType::float32;
  Dims dims;
  std::size_t bytes() const { return static_cast<std::size_t>(element_count(dims)) * element_bytes(type); }
};

/// Part of a virtual dataset: a box of it is a box, of as many elements, of a dataset in another file.
struct VirtualPart {
  std::string file;  // relative to the directory of the virtual dataset's file
  std::string dataset;
  Dims dims;  // of that dataset
  Box from;   // of that dataset
  Box to;     // of the virtual one
};

/// The bytes of a whole file.
class FileImage {
 public:
  FileImage() = default;
  FileImage(void* data, std::size_t bytes) : data_(static_cast<std::byte*>(data)), bytes_(bytes) {}
  FileImage(FileImage&& other) noexcept { *this = std::move(other); }
  FileImage& operator=(FileImage&& other) noexcept;
  ~FileImage();
  std::span<std::byte> bytes() const { return {data_, bytes_}; }

 private:
  std::byte* data_ = nullptr;  // of malloc, which is where HDF5's driver for memory grows it
  std::size_t bytes_ = 0;
};

/// "HDF5 1.10.8", of the library that runs.
std::string hdf5_library();

/// Objects are named by paths such as "model/lm_head.weight"; missing groups on the way are created.
class Hdf5File {
 public:
  enum class Mode {
    read,    // an existing file; failures are Fault::data
    create,  // a new file, replacing what was there; failures are Fault::machine
    memory,  // a new file that is in memory alone: no disk can fill up under HDF5; see take_image()
  };

  /// `user_block`: so many bytes at the front are the caller's (memory only): 0, 512, 1024, 2048, ...
  Hdf5File(const std::filesystem::path& path, Mode mode, std::size_t user_block = 0);
  ~Hdf5File();  // closes without a word; call close() where a failure matters
  Hdf5File(const Hdf5File&) = delete;
  Hdf5File& operator=(const Hdf5File&) = delete;

  /// Closes the file; a full disk may show for the first time here.
  void close();
  /// Closes a file in memory and hands its bytes out.
  FileImage take_image();

  void create_group(const std::string& name);
  bool contains(const std::string& name) const;
  bool is_group(const std::string& name) const;
  /// Names directly below a group, sorted; "/" is the root.
  std::vector<std::string> children(const std::string& group) const;

  void write(const std::string& name, ElementType type, const Dims& dims, const void* data);
  /// Reads a whole dataset; type and dims must be the ones in the file.
  void read(const std::string& name, ElementType type, const Dims& dims, void* data) const;
  /// Reads the elements of a box, row-major; the dataset must be of this type.
  void read_box(const std::string& name, ElementType type, const Box& box, void* data) const;
  DatasetInfo describe(const std::string& name) const;

  /// Creates a contiguous dataset without writing it and returns where in the file its first byte is. The
  /// caller fills it there. It must have elements.
  std::size_t reserve(const std::string& name, ElementType type, const Dims& dims);
  /// Creates a dataset that is made of parts of other files. Elements outside all parts, or in a part whose
  /// file is missing, read as NaN, or -1 for signed integers. Without any part the dataset holds zeros.
  void write_virtual(const std::string& name, ElementType type, const Dims& dims,
                     const std::vector<VirtualPart>& parts);

  // Attributes of a group or dataset; setting one again replaces it.
  void set_attribute(const std::string& object, const std::string& key, std::int64_t value);
  void set_attribute(const std::string& object, const std::string& key, double value);
  void set_attribute(const std::string& object, const std::string& key, const std::string& value);
  bool has_attribute(const std::string& object, const std::string& key) const;
  std::int64_t integer_attribute(const std::string& object, const std::string& key) const;
  double real_attribute(const std::string& object, const std::string& key) const;
  std::string text_attribute(const std::string& object, const std::string& key) const;
  std::vector<std::string> attribute_names(const std::string& object) const;
  /// The value of an attribute as a person reads it, whatever its type.
  std::string attribute_text(const std::string& object, const std::string& key) const;

 private:
  template <class Result>
  Result checked(Result result, const char* action, const std::string& name) const;
  void set_attribute_raw(const std::string& object, const std::string& key, std::int64_t type,
                         const void* value);
  std::int64_t open_attribute(const std::string& object, const std::string& key) const;

  void select(std::int64_t space, const Box& box, const std::string& name) const;
  void open_in_memory(std::int64_t access, std::size_t user_block);

  struct Memory;  // what the driver for memory has allocated
  std::filesystem::path path_;
  Mode mode_;
  std::unique_ptr<Memory> memory_;
  std::int64_t file_ = -1;  // an hid_t; hdf5.h stays out of every header
};

}  // namespace conclave
