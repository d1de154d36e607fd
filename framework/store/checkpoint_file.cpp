#include "framework/store/checkpoint_file.h"

#include <cstring>

#include "framework/base/error.h"
#include "framework/base/version.h"
#include "framework/store/checkpoint_protocol.h"
#include "framework/store/durable_file.h"
#include "framework/store/finite.h"
#include "framework/store/lookup.h"
#include "framework/store/manifest.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t format_version = 2;

void collect_names(const Hdf5File& file, const std::string& group, std::vector<std::string>& names) {
  for (const std::string& child : file.children(group.empty() ? "/" : group)) {
    const std::string name = group.empty() ? child : group + "/" + child;
    if (file.is_group(name))
      collect_names(file, name, names);
    else
      names.push_back(name);
  }
}

fs::path verified_index(const fs::path& checkpoint, Verify verify) {
  check(is_directory_there(checkpoint), Fault::data, "Checkpoint ", checkpoint.string(),
        ": there is no such directory. Give the path of a step-... directory, or of a run.");
  if (verify == Verify::everything) verify_manifest(checkpoint, ManifestCheck::content);
  return checkpoint / index_name;
}

}  // namespace

Attributes own_attributes(std::int64_t step) {
  return {{"format_version", format_version},
          {"software_version", std::string(library_version())},
          {"step", step}};
}

CheckpointWriter::CheckpointWriter(const fs::path& checkpoints, std::int64_t step)
    : checkpoints_(checkpoints), step_(step), attributes_(own_attributes(step)) {}

void CheckpointWriter::add(const std::string& name, ElementType type, const Dims& dims, const void* data) {
  pieces_.push_back({name, type, dims, boxes_of_range(dims, 0, element_count(dims))});
  const auto* bytes = static_cast<const std::byte*>(data);
  contents_.emplace_back(bytes, bytes + static_cast<std::size_t>(element_count(dims)) * element_bytes(type));
}

fs::path CheckpointWriter::commit() {
  ShardImage shard(pieces_);
  for (std::size_t piece = 0; piece < pieces_.size(); ++piece)
    if (!contents_[piece].empty())
      std::memcpy(shard.data(piece), contents_[piece].data(), contents_[piece].size());
  const FileImage index = compose_index({pieces_}, attributes_);
  make_directories(checkpoints_);
  check_free_space(checkpoints_, shard.bytes().size() + index.bytes().size());
  try {
    begin_checkpoint(checkpoints_, step_);
    return commit_checkpoint(checkpoints_, step_,
                             {write_shard(checkpoints_, step_, 0, shard),
                              write_checkpoint_file(checkpoints_, step_, index_name, index.bytes())});
  } catch (const Error&) {
    discard_checkpoint(checkpoints_, step_);
    throw;
  }
}

CheckpointReader::CheckpointReader(const fs::path& checkpoint, Verify verify)
    : path_(checkpoint), index_(verified_index(checkpoint, verify), Hdf5File::Mode::read) {
  const std::int64_t version = integer("format_version");
  check(version == format_version, Fault::data, "Checkpoint ", path_.string(), " has format version ",
        version, ", this program reads version ", format_version,
        ". Use the version of Conclave that wrote it.");
}

std::vector<std::string> CheckpointReader::names(const std::string& group) const {
  std::vector<std::string> found;
  if (group.empty() || contains(group)) collect_names(index_, group, found);
  return found;
}

/// The size of a virtual dataset is a number in the index. What is read as zeros because nobody wrote it (a
/// moment of frozen parameters) is never larger than the parameters, which are in the files.
Dims CheckpointReader::believable_dims(const std::string& name) const {
  const DatasetInfo info = describe(name);
  std::uintmax_t bytes = 0;
  for (const fs::path& file : entries_of(path_)) {
    std::error_code ignored;
    if (const std::uintmax_t size = fs::file_size(file, ignored); !ignored) bytes += size;
  }
  check(info.bytes() <= bytes, Fault::data, "Checkpoint ", path_.string(), ": ", name, " is ",
        dims_text(info.dims),
        ", more than all of its files hold. Its index is damaged; use another checkpoint.");
  return info.dims;
}

void CheckpointReader::read(const std::string& name, ElementType type, const Dims& dims, void* data) const {
  check(contains(name), Fault::data, "Checkpoint ", path_.string(), ": there is no tensor ", name,
        " in it. It was written for another model; use the recipe that it was written with.");
  index_.read(name, type, dims, data);
  check_values(name, type, data, element_count(dims));
}

void CheckpointReader::read_box(const std::string& name, ElementType type, const Box& box, void* data) const {
  check(contains(name), Fault::data, "Checkpoint ", path_.string(), ": there is no tensor ", name,
        " in it. It was written for another model; use the recipe that it was written with.");
  index_.read_box(name, type, box, data);
  check_values(name, type, data, element_count(box));
}

void CheckpointReader::check_values(const std::string& name, ElementType type, const void* data,
                                    std::int64_t elements) const {
  if (!first_bad_value(name, type, data, elements)) return;
  verify_manifest(path_, ManifestCheck::sizes);  // HDF5 reads what is in a file that is gone as NaN
  check_finite({"Checkpoint " + path_.string(), name, "Use an older checkpoint of the run."}, type, data,
               elements);
}

}  // namespace conclave
