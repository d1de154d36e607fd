// manifest.json has the size and the XXH3 checksum of every file of a checkpoint directory. It is written
// last and ends with a checksum of itself. HDF5 has no checksums of its own, and a read that succeeds proves
// nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace conclave {

constexpr const char* manifest_name = "manifest.json";

/// XXH3, 64 bits, as 16 hexadecimal digits.
std::string checksum_text(const void* data, std::size_t bytes);

/// The same of a file's content; a file that cannot be read is a Fault::data.
std::string file_checksum(const std::filesystem::path& path);

/// The same of bytes that come one after another.
class Checksum {
 public:
  Checksum();
  ~Checksum();
  Checksum(const Checksum&) = delete;
  Checksum& operator=(const Checksum&) = delete;
  void add(const void* data, std::size_t bytes);
  std::string text() const;

 private:
  void* state_;  // an XXH3_state_t; xxhash.h stays out of headers
};

/// A file of a checkpoint as it was written.
struct FileEntry {
  std::string name;
  std::uint64_t bytes = 0;
  std::string checksum;  // checksum_text of its content
  bool operator==(const FileEntry&) const = default;
};

/// Writes the manifest durably.
void write_manifest(const std::filesystem::path& directory, std::vector<FileEntry> files);
/// Writes the manifest of all files that are in the directory now.
void write_manifest(const std::filesystem::path& directory);

/// The files in the order of their names. A manifest that is missing, cut short or changed is a Fault::data.
std::vector<FileEntry> read_manifest(const std::filesystem::path& directory);

enum class ManifestCheck {
  sizes,    // every file is there with its size: quick, for deciding what to delete
  content,  // and every byte is as it was written
};

/// Throws a Fault::data that says how the file is missing, shortened or changed, and in which dataset.
void verify_file(const std::filesystem::path& directory, const FileEntry& file, ManifestCheck depth);

/// Verifies every file of the directory.
void verify_manifest(const std::filesystem::path& directory, ManifestCheck depth);

}  // namespace conclave
