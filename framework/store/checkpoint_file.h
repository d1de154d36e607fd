// A checkpoint is the directory checkpoints/step-00000100/. Every tensor is whole in its index.h5. Files
// rank-00000.h5, ... have what each rank wrote of them, and manifest.json has sizes and checksums. A
// checkpoint is there whole or not at all; see docs/checkpoints.md. The reader does not know who wrote it.
// The writer here is for one process that has all tensors at hand; launch/train/checkpointing.h is for the
// ranks of a run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "framework/store/hdf5_file.h"
#include "framework/store/shard.h"

namespace conclave {

constexpr const char* index_name = "index.h5";

/// The attributes that every checkpoint has: format_version, software_version, step.
Attributes own_attributes(std::int64_t step);

/// Names of tensors begin with their group: model/NAME, optimizer/MOMENT/NAME, state/NAME. Tensors are held
/// in memory until commit().
class CheckpointWriter {
 public:
  CheckpointWriter(const std::filesystem::path& checkpoints, std::int64_t step);

  void add(const std::string& name, ElementType type, const Dims& dims, const void* data);
  template <class T>
  void add(const std::string& name, const Dims& dims, const T* data) {
    add(name, ElementTypeOf<T>::value, dims, data);
  }
  /// Attributes of the checkpoint: tokens, recipe, ...
  void set(const std::string& key, const Attribute& value) { attributes_[key] = value; }

  /// Writes and publishes the checkpoint, replacing one of the same step, and returns its directory. A
  /// failure is a Fault::machine and leaves nothing.
  std::filesystem::path commit();

 private:
  std::filesystem::path checkpoints_;
  std::int64_t step_;
  Attributes attributes_;
  std::vector<Piece> pieces_;
  std::vector<std::vector<std::byte>> contents_;  // [pieces]
};

/// Verify says whether a reader looks at every byte first, or takes it that this was done before.
enum class Verify { everything, nothing };

class CheckpointReader {
 public:
  explicit CheckpointReader(const std::filesystem::path& checkpoint, Verify verify = Verify::everything);

  const std::filesystem::path& path() const { return path_; }
  std::int64_t step() const { return integer("step"); }

  /// Full names of all tensors below a group, sorted; "" for all.
  std::vector<std::string> names(const std::string& group = "") const;
  bool contains(const std::string& name) const { return index_.contains(name); }
  DatasetInfo describe(const std::string& name) const { return index_.describe(name); }

  /// Reads a whole tensor; another type or other dims are a Fault::data. Here and below, values that are not
  /// finite are a Fault::numeric.
  void read(const std::string& name, ElementType type, const Dims& dims, void* data) const;
  template <class T>
  void read(const std::string& name, const Dims& dims, T* data) const {
    read(name, ElementTypeOf<T>::value, dims, data);
  }
  /// Reads the elements of a box, row-major.
  void read_box(const std::string& name, ElementType type, const Box& box, void* data) const;
  /// Reads a whole tensor of whatever dims, which must not announce more than the checkpoint's files can
  /// hold.
  template <class T>
  std::vector<T> read_all(const std::string& name) const {
    const Dims dims = believable_dims(name);
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
  Dims believable_dims(const std::string& name) const;
  void check_values(const std::string& name, ElementType type, const void* data, std::int64_t elements) const;

  std::filesystem::path path_;
  Hdf5File index_;
};

}  // namespace conclave
