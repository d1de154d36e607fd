// manifest.json: the size and the XXH3 checksum of every file of a checkpoint directory, written last and
// ending with a checksum of itself. HDF5 has no checksums of its own, and a read that succeeds proves
// nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace conclave {

constexpr const char* manifest_name = "manifest.json";

/// XXH3, 64 bits, as 16 hexadecimal digits.
std::string checksum_text(const void* data, std::size_t bytes);

/// Writes the manifest of all files that are in the directory now, durably.
void write_manifest(const std::filesystem::path& directory);

enum class ManifestCheck {
  sizes,    // every file is there with its size: quick, for deciding what to delete
  content,  // and every byte is as it was written
};

/// Throws a Fault::data that says which file of the directory is missing, shortened or changed.
void verify_manifest(const std::filesystem::path& directory, ManifestCheck depth);

}  // namespace conclave
