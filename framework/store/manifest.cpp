#include "framework/store/manifest.h"

#include <xxhash.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "framework/base/error.h"
#include "framework/store/durable_file.h"
#include "framework/store/lookup.h"

namespace conclave {
namespace fs = std::filesystem;

namespace {

constexpr int manifest_version = 1;

std::string digits(XXH64_hash_t hash) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

std::string file_checksum(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  check(file.good(), Fault::data, "Cannot open ", path.string(),
        " for reading. Check that it exists and is readable.");
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(),
                                                                              XXH3_freeState);
  check(state && XXH3_64bits_reset(state.get()) == XXH_OK, Fault::machine, "No memory for a checksum of ",
        path.string());
  std::vector<char> block(1 << 16);
  do {
    file.read(block.data(), static_cast<std::streamsize>(block.size()));
    XXH3_64bits_update(state.get(), block.data(), static_cast<std::size_t>(file.gcount()));
  } while (file.good());
  check(file.eof(), Fault::data, "Reading ", path.string(),
        " failed before its end: the disk may be damaged.");
  return digits(XXH3_64bits_digest(state.get()));
}

/// The last line carries the checksum of all text before it, so that a changed manifest betrays itself.
std::string own_checksum_line(std::string_view before) {
  return "  \"checksum_of_the_lines_above\": \"" + checksum_text(before.data(), before.size()) + "\"\n}\n";
}

nlohmann::json read_manifest(const fs::path& path) {
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
  check(manifest.at("format_version") == manifest_version, Fault::data, "Checkpoint ", path.parent_path(),
        ": its manifest has format version ", manifest.at("format_version").dump(),
        ", this program reads version ", manifest_version, ". Use the version of Conclave that wrote it.");
  return manifest;
}

}  // namespace

std::string checksum_text(const void* data, std::size_t bytes) {
  return digits(XXH3_64bits(data, bytes));
}

void write_manifest(const fs::path& directory) {
  std::vector<std::string> names;
  for (const fs::path& path : entries_of(directory, Fault::machine))
    if (!is_directory_there(path, Fault::machine) && path.filename() != manifest_name)
      names.push_back(path.filename().string());
  std::sort(names.begin(), names.end());

  nlohmann::ordered_json files = nlohmann::ordered_json::array();
  for (const std::string& name : names) {
    const fs::path path = directory / name;
    std::error_code code;
    const std::uintmax_t bytes = fs::file_size(path, code);
    check(!code, Fault::machine, "Cannot measure ", path.string(), ": ", code.message(), ".");
    files.push_back({{"name", name}, {"bytes", bytes}, {"xxh3_64", file_checksum(path)}});
  }
  const std::string text =
      join_text("{\n  \"format_version\": ", manifest_version, ",\n  \"files\": ", files.dump(), ",\n");
  write_text_durably(directory / manifest_name, text + own_checksum_line(text));
}

void verify_manifest(const fs::path& directory, ManifestCheck depth) {
  const nlohmann::json manifest = read_manifest(directory / manifest_name);
  for (const auto& file : manifest.at("files")) {
    const std::string name = file.at("name").get<std::string>();
    const fs::path path = directory / name;
    std::error_code code;
    const std::uintmax_t bytes = fs::file_size(path, code);
    check(!code, Fault::data, "Checkpoint ", directory.string(), ": the file ", name, " cannot be read (",
          code.message(), "). Use another checkpoint.");
    check(bytes == file.at("bytes").get<std::uintmax_t>(), Fault::data, "Checkpoint ", directory.string(),
          ": the file ", name, " has ", bytes, " bytes, expected ", file.at("bytes").dump(),
          ". It was cut short or changed; use another checkpoint.");
    if (depth == ManifestCheck::sizes) continue;
    const std::string found = file_checksum(path);
    check(found == file.at("xxh3_64").get<std::string>(), Fault::data, "Checkpoint ", directory.string(),
          ": the file ", name, " has checksum ", found, ", expected ", file.at("xxh3_64").get<std::string>(),
          ". Its content changed after it was written; use another checkpoint.");
  }
}

}  // namespace conclave
