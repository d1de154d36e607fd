#include "launch/tools/convert/hub_directory.h"

#include <algorithm>
#include <set>

#include "framework/base/error.h"
#include "framework/data/files.h"
#include "framework/store/json_text.h"
#include "framework/store/lookup.h"
#include "launch/tools/convert/config_reader.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

constexpr const char* index_file = "model.safetensors.index.json";

/// The names of the files of a sharded model, each once.
std::set<std::string> files_of_index(const fs::path& path, const nlohmann::json& weight_map) {
  std::set<std::string> files;
  for (const auto& [tensor, file] : weight_map.items()) {
    check(file.is_string() && fs::path(file.get<std::string>()).filename() == file.get<std::string>() &&
              file.get<std::string>().ends_with(".safetensors"),
          Fault::data, path.string(), ": ", tensor, " is said to be in ", text_of(file),
          ", expected the name of a .safetensors file beside it.");
    files.insert(file.get<std::string>());
  }
  return files;
}

/// The bytes of a tensor whose header a reader has checked; data begin behind the header and its length.
std::string_view bytes_of(std::string_view file, const SafeTensor& tensor) {
  std::uint64_t header = 0;
  for (int i = 7; i >= 0; --i)
    header = header << 8 | static_cast<unsigned char>(file.at(static_cast<std::size_t>(i)));
  return file.substr(8 + header + tensor.begin, tensor.end - tensor.begin);
}

/// "a, b, c and 5 more"
std::string some_of(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < names.size() && i < 3; ++i) text += (i > 0 ? ", " : "") + names[i];
  return names.size() > 3 ? join_text(text, " and ", names.size() - 3, " more") : text;
}

}  // namespace

HubDirectory::HubDirectory(const fs::path& directory) : directory_(directory) {
  std::set<std::string> names = {"model.safetensors"};
  nlohmann::json weight_map = nlohmann::json::object();
  // transformers adds an adapter to the weights that it lies beside.
  check(!is_there(directory / "adapter_config.json"), Fault::data,
        (directory / "adapter_config.json").string(),
        " is there, and Conclave adds no adapter to weights; merge it into them, or take it out.");
  if (is_there(directory / index_file)) {
    check(!is_there(directory / "model.safetensors"), Fault::data, directory.string(),
          ": model.safetensors and ", index_file,
          " are both there, and both tell where the weights are; take the one out that is wrong.");
    const nlohmann::json index = read_json_object(directory / index_file);
    check(index.contains("weight_map") && index["weight_map"].is_object(), Fault::data,
          (directory / index_file).string(), " has no weight_map.");
    weight_map = index["weight_map"];
    names = files_of_index(directory / index_file, weight_map);
  }
  for (const std::string& name : names) {
    check(is_there(directory / name), Fault::data, "There is no ", (directory / name).string(),
          ". Weights are read from safetensors files only; the model's page, or save_pretrained of "
          "transformers, gives them.");
    files_.push_back(std::make_unique<SafetensorsReader>(directory / name));
    const std::vector<SafeTensor>& tensors = files_.back()->tensors();
    for (std::size_t place = 0; place < tensors.size(); ++place)
      check(tensors_.emplace(tensors[place].name, std::pair(files_.size() - 1, place)).second, Fault::data,
            directory.string(), ": the tensor ", tensors[place].name, " is in two files.");
  }
  for (const auto& [tensor, file] : weight_map.items()) {
    const auto found = tensors_.find(tensor);
    check(
        found != tensors_.end() && files_[found->second.first]->path().filename() == file.get<std::string>(),
        Fault::data, (directory / index_file).string(), ": ", tensor, " is not in ", text_of(file),
        ", where it is said to be.");
  }
}

const SafeTensor& HubDirectory::tensor(const std::string& name) const {
  const auto& [file, place] = tensors_.at(name);
  return files_[file]->tensors()[place];
}

const HubDirectory::NamedView* HubDirectory::view_of(const std::string& name) const {
  const auto found = views_.find(name);
  return found == views_.end() ? nullptr : &found->second;
}

std::size_t HubDirectory::tensors() const {
  std::size_t count = 0;
  for (const auto& [name, place] : tensors_) {
    const Dims& dims = shape(name);
    count += dims.size() == 3 ? static_cast<std::size_t>(dims[0]) : 1;
  }
  return count;
}

namespace {

/// Puts the rows of each head whose pairs lie side by side into the order of halves.
template <class T>
void take_pairs_apart(std::int64_t height, std::int64_t width, std::size_t elements, T* values) {
  const auto head = static_cast<std::size_t>(height * width), row = static_cast<std::size_t>(width);
  std::vector<T> paired(head);
  for (T* begin = values; begin != values + elements; begin += head) {
    std::copy(begin, begin + head, paired.begin());
    for (std::size_t i = 0; i < static_cast<std::size_t>(height); ++i) {
      const auto half = static_cast<std::size_t>(height) / 2, from = i < half ? 2 * i : 2 * (i - half) + 1;
      std::copy_n(paired.begin() + static_cast<std::ptrdiff_t>(from * row), row, begin + i * row);
    }
  }
}

}  // namespace

template <class T>
void HubDirectory::read(const std::string& name, T* values) const {
  const NamedView* named = view_of(name);
  if (named == nullptr) {
    const auto& [file, place] = tensors_.at(name);
    return files_[file]->read(files_[file]->tensors()[place], values);
  }
  const TensorView& view = named->view;
  const auto& [file, place] = tensors_.at(view.stored);
  const auto elements = static_cast<std::size_t>(element_count(named->shape));
  files_[file]->read(files_[file]->tensors()[place], view.first, element_count(named->shape), values);
  if (view.factor != 1)
    std::transform(values, values + elements, values,
                   [&](T value) { return static_cast<T>(static_cast<double>(value) * view.factor); });
  if (view.paired_heads > 0)
    take_pairs_apart(view.paired_heads, named->shape.size() > 1 ? named->shape[1] : 1, elements, values);
}

template <class T>
void HubDirectory::read(const std::string& name, std::int64_t first, std::int64_t count, T* values) const {
  const NamedView* named = view_of(name);
  if (named != nullptr && named->view.paired_heads > 0) {
    std::vector<T> whole(static_cast<std::size_t>(element_count(named->shape)));
    read(name, whole.data());
    std::copy_n(whole.begin() + static_cast<std::ptrdiff_t>(first), count, values);
    return;
  }
  const auto& [file, place] = tensors_.at(named ? named->view.stored : name);
  files_[file]->read(files_[file]->tensors()[place], (named ? named->view.first : 0) + first, count, values);
  if (named == nullptr || named->view.factor == 1) return;
  std::transform(values, values + count, values,
                 [&](T value) { return static_cast<T>(static_cast<double>(value) * named->view.factor); });
}
template void HubDirectory::read(const std::string&, std::int64_t, std::int64_t, float*) const;
template void HubDirectory::read(const std::string&, std::int64_t, std::int64_t, double*) const;
template void HubDirectory::read(const std::string&, float*) const;
template void HubDirectory::read(const std::string&, double*) const;

const Dims& HubDirectory::shape(const std::string& name) const {
  return tensor(name).shape;
}

bool HubDirectory::is_same(const std::string& name, const std::string& other) const {
  const SafeTensor &one = tensor(name), &two = tensor(other);
  if (one.shape != two.shape || one.dtype != two.dtype) return false;
  const MappedFile file(files_[tensors_.at(name).first]->path(), "weights"),
      file_of_other(files_[tensors_.at(other).first]->path(), "weights");
  return bytes_of(file.bytes(), one) == bytes_of(file_of_other.bytes(), two);
}

bool HubDirectory::any(const std::function<bool(const std::string& name)>& is_such) const {
  return std::any_of(tensors_.begin(), tensors_.end(),
                     [&](const auto& tensor) { return is_such(tensor.first); });
}

bool HubDirectory::has_type(const std::string& dtype) const {
  return std::any_of(tensors_.begin(), tensors_.end(),
                     [&](const auto& named) { return tensor(named.first).dtype == dtype; });
}

void HubDirectory::check_fits(const std::vector<HubTensor>& wanted,
                              const std::function<bool(const std::string& name)>& is_ignored) const {
  std::vector<std::string> missing, misshapen, unexpected;
  std::set<std::string> known;
  for (const HubTensor& tensor : wanted) {
    const NamedView* named = view_of(tensor.name);
    const std::string& name = named ? named->view.stored : tensor.name;
    const Dims& dims = named ? named->view.stored_shape : tensor.shape;
    if (!known.insert(name).second) continue;  // several views of one tensor
    if (!contains(name))
      missing.push_back(name);
    else if (shape(name) != dims)
      misshapen.push_back(join_text(name, " is ", dims_text(shape(name)), " and not ", dims_text(dims)));
  }
  for (const auto& [name, place] : tensors_)
    if (!known.contains(name) && !is_ignored(name)) unexpected.push_back(name);
  if (missing.empty() && misshapen.empty() && unexpected.empty()) return;
  std::string wrong;
  if (!missing.empty()) wrong += "; missing: " + some_of(missing);
  if (!misshapen.empty()) wrong += "; of another shape: " + some_of(misshapen);
  if (!unexpected.empty()) wrong += "; unexpected: " + some_of(unexpected);
  fail(Fault::data, directory_.string(), ": its tensors are not those that its config.json announces", wrong,
       ".");
}

}  // namespace conclave
