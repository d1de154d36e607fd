// HubDirectory: the tensors of a Hugging Face model directory by name, whichever of its files they are in.
// All headers are checked when it is opened; data is read tensor by tensor.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "framework/store/safetensors.h"
#include "launch/tools/convert/hub_tensors.h"

namespace conclave {

/// TensorView: a tensor that a directory has under another name, as a part of a larger one, or in a form of
/// its own.
struct TensorView {
  std::string stored;             // the name of the directory's tensor
  Dims stored_shape;              // of the whole of it
  std::int64_t first = 0;         // its element at which the view begins; the others follow
  double factor = 1;              // the view has the stored numbers times this
  std::int64_t paired_heads = 0;  // the height of heads whose rows 2i and 2i + 1 are our rows i and half + i
};

class HubDirectory {
 public:
  /// Throws Fault::data where the files are missing or damaged, or a tensor is in two of them.
  explicit HubDirectory(const std::filesystem::path& directory);

  /// Lets a name stand for a view of this shape.
  void add_view(const std::string& name, const Dims& shape, const TensorView& view) {
    views_[name] = {shape, view};
  }

  /// Requires that all wanted tensors are there with their shapes, and no other but those that `is_ignored`
  /// knows. Otherwise it throws a Fault::data that names them.
  void check_fits(const std::vector<HubTensor>& wanted,
                  const std::function<bool(const std::string& name)>& is_ignored) const;

  /// Counts the tensors; a stack of matrices counts as many as it has.
  std::size_t tensors() const;
  bool contains(const std::string& name) const { return tensors_.contains(name); }
  /// True where a tensor has such a name.
  bool any(const std::function<bool(const std::string& name)>& is_such) const;
  const Dims& shape(const std::string& name) const;
  /// True where a tensor has this type, in the words of safetensors.
  bool has_type(const std::string& dtype) const;

  /// Reads all elements of a tensor or a view, row-major.
  template <class T>
  void read(const std::string& name, T* values) const;
  /// Reads `count` elements of a tensor, from its element `first` on; of a view, all of them are read first.
  template <class T>
  void read(const std::string& name, std::int64_t first, std::int64_t count, T* values) const;
  /// True where two tensors are stored alike. Neither is held in memory.
  bool is_same(const std::string& name, const std::string& other) const;

 private:
  struct NamedView {
    Dims shape;
    TensorView view;
  };
  /// What a name stands for, if it stands for a view.
  const NamedView* view_of(const std::string& name) const;
  const SafeTensor& tensor(const std::string& name) const;

  std::filesystem::path directory_;
  std::vector<std::unique_ptr<SafetensorsReader>> files_;
  std::map<std::string, std::pair<std::size_t, std::size_t>> tensors_;  // file, place in it
  std::map<std::string, NamedView> views_;
};

}  // namespace conclave
