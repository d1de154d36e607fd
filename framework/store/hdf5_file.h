// Hdf5File: one HDF5 file, opened, read and written through plain pointers, dims and an ElementType, so that
// it knows neither tensors nor checkpoints. Every return code of the library is checked; a failure names file
// and object in one sentence with HDF5's innermost reason. It leaves atomicity to durable_file.h and
// checksums to the checkpoint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

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

/// Objects are named by paths such as "model/lm_head.weight"; missing groups on the way are created.
class Hdf5File {
 public:
  enum class Mode {
    read,    // an existing file; failures are Fault::data
    create,  // a new file, replacing what was there; failures are Fault::machine
    modify,  // an existing file; only ever for a copy that is not yet published
  };

  Hdf5File(const std::filesystem::path& path, Mode mode);
  ~Hdf5File();  // closes without a word; call close() where a failure matters
  Hdf5File(const Hdf5File&) = delete;
  Hdf5File& operator=(const Hdf5File&) = delete;

  /// Closes, which is where a full disk may show for the first time.
  void close();

  void create_group(const std::string& name);
  bool contains(const std::string& name) const;
  bool is_group(const std::string& name) const;
  /// Names directly below a group, sorted; "/" is the root.
  std::vector<std::string> children(const std::string& group) const;

  void write(const std::string& name, ElementType type, const Dims& dims, const void* data);
  /// Reads a whole dataset; type and dims must be the ones in the file.
  void read(const std::string& name, ElementType type, const Dims& dims, void* data) const;
  DatasetInfo describe(const std::string& name) const;

  /// Creates an empty dataset of shape [0, row_dims...] that append_rows extends.
  void create_rows(const std::string& name, ElementType type, const Dims& row_dims);
  /// Adds rows at the end of a dataset made by create_rows; data holds rows * (elements of a row).
  void append_rows(const std::string& name, std::int64_t rows, const void* data);
  /// Keeps only the first rows.
  void keep_rows(const std::string& name, std::int64_t rows);

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

  std::filesystem::path path_;
  Mode mode_;
  std::int64_t file_ = -1;  // an hid_t; hdf5.h stays out of every header
};

}  // namespace conclave
