#include "framework/store/checkpoint_protocol.h"

#include <algorithm>

#include "framework/base/error.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/durable_file.h"

namespace conclave {
namespace fs = std::filesystem;

fs::path partial_checkpoint_path(const fs::path& checkpoints, std::int64_t step) {
  return partial_path(checkpoint_path(checkpoints, step));
}

void begin_checkpoint(const fs::path& checkpoints, std::int64_t step) {
  const fs::path partial = partial_checkpoint_path(checkpoints, step);
  std::error_code code;
  fs::remove_all(partial, code);
  check(!code, Fault::machine, "Cannot clear away ", partial.string(),
        " of a save that was cut short: ", code.message(), ". Check the permissions of its directory.");
  make_directories(partial);
}

namespace {

void write_blocks(DurableFile& file, std::span<const std::byte> bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const auto block = bytes.subspan(at, std::min<std::size_t>(bytes.size() - at, std::size_t{8} << 20));
    file.write(block.data(), block.size());
    file.begin_sync();
    at += block.size();
  }
}

}  // namespace

FileEntry write_checkpoint_file(const fs::path& checkpoints, std::int64_t step, const std::string& name,
                                std::span<const std::byte> bytes) {
  const fs::path partial = partial_checkpoint_path(checkpoints, step);
  DurableFile file(partial / name);
  write_blocks(file, bytes);
  file.sync();
  sync_to_disk(partial);
  return {name, bytes.size(), checksum_text(bytes.data(), bytes.size())};
}

FileEntry write_shard(const fs::path& checkpoints, std::int64_t step, std::int64_t rank, ShardImage& shard) {
  const fs::path partial = partial_checkpoint_path(checkpoints, step);
  const std::string name = shard_name(rank);
  DurableFile file(partial / name);
  file.seek(shard.table_bytes());
  write_blocks(file, shard.bytes().subspan(shard.table_bytes()));
  shard.seal();
  const std::string checksum = checksum_text(shard.bytes().data(), shard.bytes().size());
  file.seek(0);
  write_blocks(file, shard.bytes().first(shard.table_bytes()));
  file.sync();
  sync_to_disk(partial);
  return {name, shard.bytes().size(), checksum};
}

fs::path commit_checkpoint(const fs::path& checkpoints, std::int64_t step,
                           const std::vector<FileEntry>& files) {
  const fs::path partial = partial_checkpoint_path(checkpoints, step),
                 path = checkpoint_path(checkpoints, step);
  for (const FileEntry& file : files) {
    std::error_code code;
    const std::uintmax_t bytes = fs::file_size(partial / file.name, code);
    check(!code && bytes == file.bytes, Fault::machine, "The file ", (partial / file.name).string(),
          " was written with ", file.bytes, " bytes, but ",
          code ? "it is not there (" + code.message() + ")" : join_text("it has ", bytes),
          ". All ranks must see the same output directory.");
  }
  write_manifest(partial, files);
  publish(partial, path);
  return path;
}

void discard_checkpoint(const fs::path& checkpoints, std::int64_t step) noexcept {
  std::error_code ignored;
  fs::remove_all(partial_checkpoint_path(checkpoints, step), ignored);
}

}  // namespace conclave
