// CheckpointStream writes a checkpoint of tensors that come one after another. It holds no more than a copy
// of the largest of them, as tensors go to a shard file as soon as they fill one. The result is like any
// other checkpoint (checkpoint_file.h); one process writes it.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "framework/store/checkpoint_file.h"
#include "framework/store/manifest.h"
#include "framework/store/shard.h"

namespace conclave {

class CheckpointStream {
 public:
  /// A shard is written as soon as `shard_bytes` bytes have come.
  CheckpointStream(const std::filesystem::path& checkpoints, std::int64_t step,
                   std::size_t shard_bytes = std::size_t{16} << 20);
  /// Removes the files that were written, unless commit() came.
  ~CheckpointStream();
  CheckpointStream(const CheckpointStream&) = delete;
  CheckpointStream& operator=(const CheckpointStream&) = delete;

  /// Names as in CheckpointWriter: model/NAME, ... `data`: elements of `type`, row-major. Values that are not
  /// finite are a Fault::numeric.
  void add(const std::string& name, ElementType type, const Dims& dims, const void* data);
  /// Adds a tensor of zeros, which takes no room.
  void add_zeros(const std::string& name, ElementType type, const Dims& dims);

  /// Writes the index with these attributes, publishes, and returns the checkpoint's directory.
  std::filesystem::path commit(const Attributes& attributes);

 private:
  void write_what_waits();
  void write_shard_of(const std::vector<Piece>& pieces, const std::function<void(ShardImage&)>& fill);

  std::filesystem::path checkpoints_;
  std::int64_t step_;
  std::size_t shard_bytes_, waiting_bytes_ = 0;
  std::vector<Piece> waiting_;                    // what has come since the last shard
  std::vector<std::vector<std::byte>> contents_;  // of them
  std::vector<std::vector<Piece>> written_;       // [shards]
  std::vector<FileEntry> files_;
  bool committed_ = false;
};

}  // namespace conclave
