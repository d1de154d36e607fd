#include "framework/store/checkpoint_file.h"

#include "framework/base/error.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"
#include "framework/store/manifest.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t format_version = 1;
constexpr const char* index_name = "index.h5";
constexpr const char* checksum_key = "xxh3_64";

void collect_names(const Hdf5File& file, const std::string& group, std::vector<std::string>& names) {
  for (const std::string& child : file.children(group.empty() ? "/" : group)) {
    const std::string name = group.empty() ? child : group + "/" + child;
    if (file.is_group(name))
      collect_names(file, name, names);
    else
      names.push_back(name);
  }
}

fs::path verified_index(const fs::path& checkpoint) {
  check(is_directory_there(checkpoint), Fault::data, "Checkpoint ", checkpoint.string(),
        ": there is no such directory. Give the path of a step-... directory, or of a run.");
  verify_manifest(checkpoint, ManifestCheck::content);
  return checkpoint / index_name;
}

}  // namespace

CheckpointWriter::CheckpointWriter(const fs::path& checkpoints, std::int64_t step)
    : final_(checkpoint_path(checkpoints, step)), partial_(partial_path(final_)) {
  std::error_code ignored;
  fs::remove_all(partial_, ignored);  // of a run that was killed here
  make_directories(partial_);
  index_ = std::make_unique<Hdf5File>(partial_ / index_name, Hdf5File::Mode::create);
  set("format_version", format_version);
  set("software_version", std::string(CONCLAVE_VERSION));
  set("step", step);
}

CheckpointWriter::~CheckpointWriter() {
  index_.reset();
  std::error_code ignored;
  fs::remove_all(partial_, ignored);
}

void CheckpointWriter::add(const std::string& name, ElementType type, const Dims& dims, const void* data) {
  check(index_ != nullptr, "CheckpointWriter::add: ", name, " came after commit()");
  const std::size_t bytes = static_cast<std::size_t>(element_count(dims)) * element_bytes(type);
  check_free_space(partial_, bytes);
  index_->write(name, type, dims, data);
  index_->set_attribute(name, checksum_key, checksum_text(data, bytes));
}

void CheckpointWriter::set(const std::string& key, std::int64_t value) {
  index_->set_attribute("/", key, value);
}
void CheckpointWriter::set(const std::string& key, double value) {
  index_->set_attribute("/", key, value);
}
void CheckpointWriter::set(const std::string& key, const std::string& value) {
  index_->set_attribute("/", key, value);
}

fs::path CheckpointWriter::commit() {
  check(index_ != nullptr, "CheckpointWriter::commit: came a second time");
  index_->close();
  index_.reset();
  sync_to_disk(partial_ / index_name);
  write_manifest(partial_);
  publish(partial_, final_);
  return final_;
}

CheckpointReader::CheckpointReader(const fs::path& checkpoint)
    : path_(checkpoint), index_(verified_index(checkpoint), Hdf5File::Mode::read) {
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

void CheckpointReader::read(const std::string& name, ElementType type, const Dims& dims, void* data) const {
  check(contains(name), Fault::data, "Checkpoint ", path_.string(), ": there is no tensor ", name,
        " in it. It was written for another model; use the recipe that it was written with.");
  index_.read(name, type, dims, data);
  const std::string expected = index_.text_attribute(name, checksum_key);
  const std::string found =
      checksum_text(data, static_cast<std::size_t>(element_count(dims)) * element_bytes(type));
  check(found == expected, Fault::data, "Checkpoint ", path_.string(), ": the tensor ", name,
        " has checksum ", found, ", expected ", expected,
        ". Its content is not what was written; use another checkpoint.");
}

}  // namespace conclave
