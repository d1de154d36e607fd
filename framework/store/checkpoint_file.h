// A checkpoint: the directory checkpoints/step-00000100/ with index.h5 (tensors and attributes by name) and
// manifest.json (sizes and checksums). It is there whole or not at all. One process writes it in this
// version; writer and reader by tensor name are the seam behind which it can become sharded and asynchronous.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "framework/store/hdf5_file.h"

namespace conclave {

/// Names of tensors begin with their group: model/NAME, optimizer/MOMENT/NAME, state/NAME.
class CheckpointWriter {
 public:
  /// Opens DIRECTORY/step-XXXXXXXX.partial; nothing is visible under the final name before commit().
  CheckpointWriter(const std::filesystem::path& checkpoints, std::int64_t step);
  ~CheckpointWriter();  // without commit(): what was written is removed
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  void add(const std::string& name, ElementType type, const Dims& dims, const void* data);
  template <class T>
  void add(const std::string& name, const Dims& dims, const T* data) {
    add(name, ElementTypeOf<T>::value, dims, data);
  }
  /// Attributes of the checkpoint: tokens, recipe, ...; step, format_version and software_version are set
  /// already.
  void set(const std::string& key, std::int64_t value);
  void set(const std::string& key, double value);
  void set(const std::string& key, const std::string& value);

  /// Publishes the checkpoint, replacing one of the same step, and returns its directory.
  std::filesystem::path commit();

 private:
  std::filesystem::path final_, partial_;
  std::unique_ptr<Hdf5File> index_;
};

class CheckpointReader {
 public:
  /// Verifies every byte against the manifest before anything is read.
  explicit CheckpointReader(const std::filesystem::path& checkpoint);

  const std::filesystem::path& path() const { return path_; }
  std::int64_t step() const { return integer("step"); }

  /// Full names of all tensors below a group, sorted; "" for all.
  std::vector<std::string> names(const std::string& group = "") const;
  bool contains(const std::string& name) const { return index_.contains(name); }
  DatasetInfo describe(const std::string& name) const { return index_.describe(name); }

  /// Reads a tensor and verifies its own checksum; another type or other dims are a Fault::data.
  void read(const std::string& name, ElementType type, const Dims& dims, void* data) const;
  template <class T>
  void read(const std::string& name, const Dims& dims, T* data) const {
    read(name, ElementTypeOf<T>::value, dims, data);
  }
  /// Reads a whole tensor of whatever dims.
  template <class T>
  std::vector<T> read_all(const std::string& name) const {
    const Dims dims = describe(name).dims;
    std::vector<T> values(static_cast<std::size_t>(element_count(dims)));
    read(name, dims, values.data());
    return values;
  }

  bool has(const std::string& key) const { return index_.has_attribute("/", key); }
  std::int64_t integer(const std::string& key) const { return index_.integer_attribute("/", key); }
  double real(const std::string& key) const { return index_.real_attribute("/", key); }
  std::string text(const std::string& key) const { return index_.text_attribute("/", key); }
  std::vector<std::string> attribute_names() const { return index_.attribute_names("/"); }
  std::string attribute_text(const std::string& key) const { return index_.attribute_text("/", key); }

 private:
  std::filesystem::path path_;
  Hdf5File index_;
};

}  // namespace conclave
