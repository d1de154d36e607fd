#include "framework/store/checkpoint_stream.h"

#include <cstring>
#include <utility>

#include "framework/base/error.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/checkpoint_protocol.h"
#include "framework/store/durable_file.h"
#include "framework/store/finite.h"

namespace conclave {

CheckpointStream::CheckpointStream(const std::filesystem::path& checkpoints, std::int64_t step,
                                   std::size_t shard_bytes)
    : checkpoints_(checkpoints), step_(step), shard_bytes_(shard_bytes) {
  make_directories(checkpoints_);
  begin_checkpoint(checkpoints_, step_);
}

CheckpointStream::~CheckpointStream() {
  if (!committed_) discard_checkpoint(checkpoints_, step_);
}

void CheckpointStream::add(const std::string& name, ElementType type, const Dims& dims, const void* data) {
  const std::int64_t elements = element_count(dims);
  const std::size_t size = static_cast<std::size_t>(elements) * element_bytes(type);
  check_finite({"What comes for " + checkpoint_path(checkpoints_, step_).string(), name}, type, data,
               elements);
  const Piece piece{name, type, dims, boxes_of_range(dims, 0, elements)};
  if (size >= shard_bytes_) {  // from where it is: no second copy of what is large
    write_shard_of({piece}, [&](ShardImage& shard) { std::memcpy(shard.data(0), data, size); });
    return;
  }
  const auto* bytes = static_cast<const std::byte*>(data);
  waiting_.push_back(piece);
  contents_.emplace_back(bytes, bytes + size);
  waiting_bytes_ += size;
  if (waiting_bytes_ >= shard_bytes_) write_what_waits();
}

void CheckpointStream::add_zeros(const std::string& name, ElementType type, const Dims& dims) {
  waiting_.push_back({name, type, dims, {}});
  contents_.emplace_back();
}

void CheckpointStream::write_what_waits() {
  write_shard_of(std::exchange(waiting_, {}), [&](ShardImage& shard) {
    for (std::size_t piece = 0; piece < contents_.size(); ++piece)
      if (!contents_[piece].empty())
        std::memcpy(shard.data(piece), contents_[piece].data(), contents_[piece].size());
    contents_.clear();
  });
  waiting_bytes_ = 0;
}

void CheckpointStream::write_shard_of(const std::vector<Piece>& pieces,
                                      const std::function<void(ShardImage&)>& fill) {
  ShardImage shard(pieces);
  fill(shard);
  check_free_space(checkpoints_, shard.bytes().size());
  files_.push_back(write_shard(checkpoints_, step_, static_cast<std::int64_t>(written_.size()), shard));
  written_.push_back(pieces);
}

std::filesystem::path CheckpointStream::commit(const Attributes& attributes) {
  if (!waiting_.empty() || written_.empty()) write_what_waits();
  const FileImage index = compose_index(written_, attributes);
  files_.push_back(write_checkpoint_file(checkpoints_, step_, index_name, index.bytes()));
  const std::filesystem::path path = commit_checkpoint(checkpoints_, step_, files_);
  committed_ = true;
  return path;
}

}  // namespace conclave
