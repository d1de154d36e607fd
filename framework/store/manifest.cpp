#include "framework/store/manifest.h"

#include <xxhash.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "framework/base/error.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"
#include "framework/store/shard.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

constexpr int manifest_version = 2;

std::string digits(XXH64_hash_t hash) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

/// The last line carries the checksum of all text before it, so that a changed manifest betrays itself.
std::string own_checksum_line(std::string_view before) {
  return "  \"checksum_of_the_lines_above\": \"" + checksum_text(before.data(), before.size()) + "\"\n}\n";
}

nlohmann::json parse_manifest(const fs::path& path) {
  const std::string checkpoint = path.parent_path().string();
  check(is_there(path), Fault::data, "Checkpoint ", checkpoint, ": there is no ", manifest_name,
        " in it, so it is not a complete checkpoint. Use another one.");
  std::ifstream file(path, std::ios::binary);
  check(file.good(), Fault::data, "Cannot open ", path.string(), " for reading. Check its permissions.");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::size_t last_line = text.find("  \"checksum_of_the_lines_above\"");
  check(last_line != std::string::npos &&
            text.substr(last_line) == own_checksum_line(std::string_view(text).substr(0, last_line)),
        Fault::data, "Checkpoint ", checkpoint, ": ", manifest_name,
        " does not match its own checksum, so it was changed or cut short. Use another checkpoint.");
  nlohmann::json manifest = nlohmann::json::parse(text);
  check(manifest.at("format_version") == manifest_version, Fault::data, "Checkpoint ", checkpoint,
        ": its manifest has format version ", manifest.at("format_version").dump(),
        ", this program reads version ", manifest_version, ". Use the version of Conclave that wrote it.");
  return manifest;
}

/// A name of a manifest becomes part of a path: it must not lead out of the directory.
bool names_a_file(const std::string& name) {
  const auto is_plain = [](unsigned char c) { return c > 0x20 && c < 0x7f && c != '/'; };
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." && name != manifest_name &&
         std::all_of(name.begin(), name.end(), is_plain);
}

/// Throws nlohmann's errors where the structure is another one.
FileEntry parse_entry(const nlohmann::json& file, const std::string& checkpoint) {
  FileEntry entry{file.at("name").get<std::string>(), 0, file.at("xxh3_64").get<std::string>()};
  check(names_a_file(entry.name), Fault::data, "Checkpoint ", checkpoint, ": ", manifest_name,
        " names the file ", file.at("name").dump(),
        ", expected the plain name of a file beside it. Use another checkpoint.");
  check(file.at("bytes").is_number_unsigned(), Fault::data, "Checkpoint ", checkpoint, ": ", manifest_name,
        " gives ", entry.name, " a size of ", file.at("bytes").dump(),
        ", expected a number of bytes. Use another checkpoint.");
  entry.bytes = file.at("bytes").get<std::uint64_t>();
  return entry;
}

}  // namespace

std::string checksum_text(const void* data, std::size_t bytes) {
  return digits(XXH3_64bits(data, bytes));
}

std::string file_checksum(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  check(file.good(), Fault::data, "Cannot open ", path.string(),
        " for reading. Check that it exists and is readable.");
  Checksum checksum;
  std::vector<char> block(std::size_t{1} << 20);
  do {
    file.read(block.data(), static_cast<std::streamsize>(block.size()));
    checksum.add(block.data(), static_cast<std::size_t>(file.gcount()));
  } while (file.good());
  check(file.eof(), Fault::data, "Reading ", path.string(),
        " failed before its end: the disk may be damaged.");
  return checksum.text();
}

Checksum::Checksum() : state_(XXH3_createState()) {
  check(state_ != nullptr && XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_)) == XXH_OK, Fault::machine,
        "No memory for a checksum.");
}

Checksum::~Checksum() {
  XXH3_freeState(static_cast<XXH3_state_t*>(state_));
}

void Checksum::add(const void* data, std::size_t bytes) {
  XXH3_64bits_update(static_cast<XXH3_state_t*>(state_), data, bytes);
}

std::string Checksum::text() const {
  return digits(XXH3_64bits_digest(static_cast<XXH3_state_t*>(state_)));
}

void write_manifest(const fs::path& directory, std::vector<FileEntry> entries) {
  std::sort(entries.begin(), entries.end(),
            [](const FileEntry& a, const FileEntry& b) { return a.name < b.name; });
  std::string files;
  for (const FileEntry& entry : entries)
    files += (files.empty() ? "\n    " : ",\n    ") +
             nlohmann::ordered_json{{"name", entry.name}, {"bytes", entry.bytes}, {"xxh3_64", entry.checksum}}
                 .dump();
  const std::string text =
      join_text("{\n  \"format_version\": ", manifest_version, ",\n  \"files\": [", files, "],\n");
  write_text_durably(directory / manifest_name, text + own_checksum_line(text));
}

void write_manifest(const fs::path& directory) {
  std::vector<FileEntry> entries;
  for (const fs::path& path : entries_of(directory, Fault::machine)) {
    if (is_directory_there(path, Fault::machine) || path.filename() == manifest_name) continue;
    std::error_code code;
    const std::uintmax_t bytes = fs::file_size(path, code);
    check(!code, Fault::machine, "Cannot measure ", path.string(), ": ", code.message(), ".");
    entries.push_back({path.filename().string(), bytes, file_checksum(path)});
  }
  write_manifest(directory, std::move(entries));
}

std::vector<FileEntry> read_manifest(const fs::path& directory) try {
  std::vector<FileEntry> entries;
  const nlohmann::json manifest = parse_manifest(directory / manifest_name);
  for (const auto& file : manifest.at("files")) {
    entries.push_back(parse_entry(file, directory.string()));
    check(entries.size() == 1 || entries[entries.size() - 2].name < entries.back().name, Fault::data,
          "Checkpoint ", directory.string(), ": ", manifest_name, " names the file ", entries.back().name,
          " twice or out of order. Use another checkpoint.");
  }
  return entries;
} catch (const nlohmann::json::exception& error) {
  fail(Fault::data, "Checkpoint ", directory.string(), ": ", manifest_name,
       " is not what Conclave writes: ", error.what(), ". Use another checkpoint.");
}

void verify_file(const fs::path& directory, const FileEntry& file, ManifestCheck depth) {
  const fs::path path = directory / file.name;
  std::error_code code;
  const std::uintmax_t bytes = fs::file_size(path, code);
  check(!code, Fault::data, "Checkpoint ", directory.string(), ": the file ", file.name, " cannot be read (",
        code.message(), "). Use another checkpoint.");
  const auto damage = [&] {
    const std::string pieces = depth == ManifestCheck::content ? damaged_pieces(path) : "";
    return pieces.empty() ? "" : " In it " + pieces + ".";
  };
  if (bytes != file.bytes)
    fail(Fault::data, "Checkpoint ", directory.string(), ": the file ", file.name, " has ", bytes,
         " bytes, expected ", file.bytes, ".", damage(),
         " It was cut short or changed; use another checkpoint.");
  if (depth == ManifestCheck::sizes) return;
  const std::string found = file_checksum(path);
  if (found != file.checksum)
    fail(Fault::data, "Checkpoint ", directory.string(), ": the file ", file.name, " has checksum ", found,
         ", expected ", file.checksum, ".", damage(),
         " Its content changed after it was written; use another checkpoint.");
}

void verify_manifest(const fs::path& directory, ManifestCheck depth) {
  for (const FileEntry& file : read_manifest(directory)) verify_file(directory, file, depth);
}

}  // namespace conclave
