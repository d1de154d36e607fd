#include "launch/tools/commands/inspect.h"

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <vector>

#include "framework/base/error.h"
#include "framework/base/printable.h"
#include "framework/base/text.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/checkpoint_file.h"
#include "framework/store/finite.h"
#include "framework/store/manifest.h"
#include "launch/tools/commands/command_line.h"

namespace conclave {
namespace {

std::string readable_bytes(double bytes) {
  const char* unit = "bytes";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"}) {
    if (bytes < 1024) break;
    bytes /= 1024;
    unit = next;
  }
  char text[64];
  std::snprintf(text, sizeof text,
                bytes == static_cast<double>(static_cast<std::int64_t>(bytes)) ? "%.0f %s" : "%.1f %s", bytes,
                unit);
  return text;
}

void print_attributes(const CheckpointReader& checkpoint) {
  std::cout << "attributes\n";
  for (const std::string& key : checkpoint.attribute_names()) {
    const std::string value = checkpoint.attribute_text(key);
    if (value.find('\n') == std::string::npos) {
      std::cout << printable(join_text("  ", key, ": ", value, "\n"));
      continue;
    }
    std::cout << "  " << printable(key) << ":\n";
    std::istringstream lines(value);
    for (std::string line; std::getline(lines, line);) std::cout << "    " << printable(line) << "\n";
  }
}

void print_files(const std::filesystem::path& checkpoint) {
  std::cout << "files\n";
  for (const FileEntry& file : read_manifest(checkpoint))
    std::cout << "  " << printable(file.name) << "  " << readable_bytes(static_cast<double>(file.bytes))
              << "  xxh3_64 " << file.checksum << "\n";
}

/// Prints one line per tensor under the name of its group and returns how many bytes they hold.
std::size_t print_tensors(const CheckpointReader& checkpoint, const std::vector<std::string>& names) {
  std::size_t bytes = 0;
  std::string group;
  for (const std::string& name : names) {
    const std::size_t slash = name.rfind('/');
    const std::string parent = slash == std::string::npos ? "" : name.substr(0, slash);
    if (parent != group) std::cout << printable(parent) << "\n";
    group = parent;
    const DatasetInfo info = checkpoint.describe(name);
    std::cout << "  " << printable(name.substr(slash == std::string::npos ? 0 : slash + 1)) << "  "
              << element_name(info.type) << " " << dims_text(info.dims) << "  "
              << readable_bytes(static_cast<double>(info.bytes())) << "\n";
    bytes += info.bytes();
  }
  return bytes;
}

}  // namespace

int run_inspect(const std::vector<std::string>& arguments) {
  const Options options(
      {.name = "inspect",
       .positionals = "CHECKPOINT",
       .summary = "Lists the tensors, attributes and files of a checkpoint and verifies every checksum.",
       .options = {},
       .more = "CHECKPOINT is a step-... directory, a checkpoints directory or a run directory; of several\n"
               "checkpoints the newest good one is listed, and damaged newer ones are named.\n"
               "Exit code: 0 all is well, 2 the request is wrong, 3 missing or damaged, 4 values that are "
               "not finite.\n\n"
               "Examples:\n"
               "  conclave inspect runs/quickstart\n"
               "  conclave inspect runs/quickstart/checkpoints/step-00000100"},
      arguments);
  if (options.wants_help()) {
    std::fputs(options.help().c_str(), stdout);
    return 0;
  }
  options.refuse_overrides();
  const std::string path = options.only_positional("checkpoint");

  const FoundCheckpoint found = find_checkpoint(path);
  const CheckpointReader checkpoint(*found.path, Verify::nothing);  // found by having verified every byte
  const std::vector<std::string> names = checkpoint.names();
  std::cout << "checkpoint " << printable(found.path->string()) << "\n";
  print_attributes(checkpoint);
  print_files(*found.path);
  const std::size_t bytes = print_tensors(checkpoint, names);
  const std::vector<std::string> wrong = tensors_not_finite(checkpoint);
  if (!wrong.empty()) {
    std::cout << std::flush;
    fail(Fault::numeric, "Checkpoint ", found.path->string(), ": every checksum is right, but ", wrong.size(),
         " of ", names.size(), " tensors hold values that are not finite (NaN or infinity), the first is ",
         wrong[0], ". Use an older checkpoint of the run.");
  }
  std::cout << "good: " << counted(static_cast<std::int64_t>(names.size()), "tensor") << ", "
            << readable_bytes(static_cast<double>(bytes)) << ", every checksum is right" << std::endl;
  if (found.rejected.empty()) return 0;
  std::cerr << "A newer checkpoint is damaged:\n";
  for (const std::string& sentence : found.rejected) std::cerr << "  " << printable(sentence) << "\n";
  return static_cast<int>(Fault::data);
}

}  // namespace conclave
