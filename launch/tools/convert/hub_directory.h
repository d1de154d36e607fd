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

class HubDirectory {
 public:
  /// Throws Fault::data where the files are missing or damaged, or a tensor is in two of them.
  explicit HubDirectory(const std::filesystem::path& directory);

  /// Requires that all wanted tensors are there with their shapes, and no other but those that `is_ignored`
  /// knows. Otherwise it throws a Fault::data that names them.
  void check_fits(const std::vector<HubTensor>& wanted,
                  const std::function<bool(const std::string& name)>& is_ignored) const;

  /// Counts the tensors.
  std::size_t tensors() const { return tensors_.size(); }
  bool contains(const std::string& name) const { return tensors_.contains(name); }
  /// True where a tensor has such a name.
  bool any(const std::function<bool(const std::string& name)>& is_such) const;
  const Dims& shape(const std::string& name) const;
  /// True where a tensor has this type, in the words of safetensors.
  bool has_type(const std::string& dtype) const;

  /// Reads all elements of a tensor, row-major.
  template <class T>
  void read(const std::string& name, T* values) const {
    const auto& [file, place] = tensors_.at(name);
    files_[file]->read(files_[file]->tensors()[place], values);
  }
  /// Reads `count` elements of a tensor, from its element `first` on.
  template <class T>
  void read(const std::string& name, std::int64_t first, std::int64_t count, T* values) const {
    const auto& [file, place] = tensors_.at(name);
    files_[file]->read(files_[file]->tensors()[place], first, count, values);
  }
  /// True where two tensors are stored alike. Neither is held in memory.
  bool is_same(const std::string& name, const std::string& other) const;

 private:
  const SafeTensor& tensor(const std::string& name) const;

  std::filesystem::path directory_;
  std::vector<std::unique_ptr<SafetensorsReader>> files_;
  std::map<std::string, std::pair<std::size_t, std::size_t>> tensors_;  // file, place in it
};

}  // namespace conclave
