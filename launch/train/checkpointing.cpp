#include "launch/train/checkpointing.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <sstream>
#include <utility>

#include "framework/base/text.h"
#include "framework/store/checkpoint_directory.h"
#include "framework/store/durable_file.h"
#include "framework/store/finite.h"
#include "parallel/agreement.h"

namespace conclave {
namespace {

constexpr std::size_t least_spare_bytes = std::size_t{128} << 10;

/// agree(), for what may fail without ending the run: the same answer on all ranks. A bug still ends it.
std::optional<Error> failure_of_any(Communicator& world, const std::function<void()>& action) {
  try {
    agree(world, action);
    return std::nullopt;
  } catch (const Error& error) {
    if (error.fault() == Fault::internal) throw;
    return error;
  }
}

std::string to_text(const std::vector<FileEntry>& files) {
  std::ostringstream text;
  for (const FileEntry& file : files) text << file.name << " " << file.bytes << " " << file.checksum << "\n";
  return text.str();
}

std::vector<FileEntry> entries_from_text(const std::string& text) {
  std::vector<FileEntry> files;
  std::istringstream words(text);
  for (FileEntry file; words >> file.name >> file.bytes >> file.checksum;) files.push_back(file);
  return files;
}

}  // namespace

Checkpointing::Checkpointing(std::filesystem::path checkpoints, const CheckpointingOptions& options,
                             Communicator& world, Logger& logger)
    : checkpoints_(std::move(checkpoints)), options_(options), world_(world), logger_(logger) {
  std::signal(SIGXFSZ,
              SIG_IGN);  // a file that may not grow is an error of write(), not the end of the process
}

Checkpointing::~Checkpointing() = default;

void Checkpointing::save(const Trainer& trainer, const std::function<void()>& before, Follows follows) {
  finish();
  begin_ = Clock::now();
  step_ = trainer.steps_done();
  follows_ = follows;
  to_trust_ = step_;
  trusted_.reset();
  std::optional<Error> failure = take_snapshot(trainer);
  if (!failure)
    failure = failure_of_any(world_, [&] {
      if (world_.rank() != 0) return;
      if (before) before();
      if (options_.check_place) options_.check_place();  // what came before may have taken long
      remove_partial_checkpoints(checkpoints_);
      begin_checkpoint(checkpoints_, step_);
      // A little more than the files, so that metrics and log can go on beside them.
      check_free_space(checkpoints_, static_cast<std::size_t>(bytes_ + bytes_ / 64) + least_spare_bytes);
    });
  if (failure) {
    give_up(*failure);
  } else {
    start_writing();
    snapshot_seconds_ = seconds_since(begin_);
    if (!options_.asynchronous) finish();
  }
  blocking_seconds_ += seconds_since(begin_);
}

std::optional<Error> Checkpointing::take_snapshot(const Trainer& trainer) {
  const std::vector<RankPart> parts = trainer.parts(options_.least_share_bytes);
  std::vector<Piece> pieces;
  for (const RankPart& part : parts) pieces.push_back(part.piece);
  // The first save lays out the files; what is in them changes from save to save, where it is does not,
  // unless a rank has more state than before.
  const bool same = shard_ != nullptr && pieces == pieces_;
  const auto lay_out = [&] {
    if (same) return;
    shard_.reset();
    shard_ = std::make_unique<ShardImage>(pieces);
    pieces_ = pieces;
  };
  if (const auto failure = failure_of_any(world_, lay_out)) {
    shard_.reset();
    return failure;
  }
  const Tensor sums = Tensor::from(
      std::vector<std::int64_t>{same ? 0 : 1, static_cast<std::int64_t>(shard_->bytes().size())}, {2});
  world_.all_reduce(sums, ReduceOp::sum, Purpose::agreement);
  bytes_ = sums.to_host<std::int64_t>()[1];
  if (sums.to_host<std::int64_t>()[0] > 0) {
    const std::vector<std::string> texts = all_gather_text(world_, to_text(pieces_));
    all_pieces_.clear();
    if (world_.rank() == 0)
      for (const std::string& text : texts) all_pieces_.push_back(pieces_from_text(text));
  }
  return failure_of_any(world_, [&] {
    for (std::size_t i = 0; i < parts.size(); ++i)
      if (const Tensor& values = parts[i].values; values.defined())
        values.device().copy_to_host(shard_->data(i), values.raw(), values.bytes());
    for (std::size_t i = 0; i < parts.size(); ++i)
      check_finite({join_text("the state after step ", step_), pieces_[i].name}, pieces_[i].type,
                   shard_->data(i), pieces_[i].elements());
    if (world_.rank() != 0) return;
    index_ = compose_index(all_pieces_, trainer.attributes());
    bytes_ += static_cast<std::int64_t>(index_.bytes().size());
  });
}

void Checkpointing::start_writing() {
  phase_ = Phase::writing;
  written_.clear();
  task_ = std::make_unique<BackgroundTask>([this] {
    if (world_.rank() == 0 && options_.check_place) options_.check_place();
    make_directories(partial_checkpoint_path(checkpoints_, step_));  // a name that rank 0 has just made
    written_.push_back(write_shard(checkpoints_, step_, world_.rank(), *shard_));
    if (world_.rank() == 0)
      written_.push_back(write_checkpoint_file(checkpoints_, step_, index_name, index_.bytes()));
    writing_seconds_ = seconds_since(begin_);
  });
}

void Checkpointing::start_publishing() {
  phase_ = Phase::publishing;
  std::vector<FileEntry> files;
  for (const std::string& text : all_gather_text(world_, to_text(written_)))
    for (FileEntry& file : entries_from_text(text)) files.push_back(std::move(file));
  task_.reset();
  if (world_.rank() != 0) return;
  bytes_ = 0;
  for (const FileEntry& file : files) bytes_ += static_cast<std::int64_t>(file.bytes);
  task_ = std::make_unique<BackgroundTask>([this, files = std::move(files)] {
    if (options_.check_place) options_.check_place();
    commit_checkpoint(checkpoints_, step_, files);
  });
}

void Checkpointing::trust_last_save() {
  if (to_trust_) trusted_ = std::exchange(to_trust_, std::nullopt);
  begin_removal();
}

void Checkpointing::begin_removal() {
  if (!trusted_ || phase_ != Phase::idle) return;
  const std::int64_t step = *std::exchange(trusted_, std::nullopt);
  if (world_.rank() != 0 || options_.keep <= 0) return;
  end_removal();
  removal_step_ = step;
  removal_ = std::make_unique<BackgroundTask>([this, step] {
    if (options_.check_place) options_.check_place();
    remove_old_checkpoints(checkpoints_, step, options_.keep);
  });
}

void Checkpointing::end_removal() {
  if (!removal_) return;
  removal_->wait();
  if (removal_->failure())
    logger_.warning("Checkpoints older than step ", removal_step_,
                    " could not be removed: ", removal_->failure()->what(), " The next save tries again.");
  removal_.reset();
}

std::vector<double> Checkpointing::votes() const {
  return {phase_ != Phase::idle && (task_ == nullptr || task_->finished()) ? 1.0 : 0.0};
}

void Checkpointing::after_step(const std::vector<double>& votes) {
  if (phase_ != Phase::idle && votes.at(0) == static_cast<double>(world_.size())) end_phase();
}

void Checkpointing::end_phase() {
  const std::optional<Error> failure = failure_of_any(world_, [&] {
    if (task_ == nullptr) return;
    task_->wait();
    if (task_->failure()) throw *task_->failure();
  });
  if (failure) return give_up(*failure);
  if (phase_ == Phase::writing) return start_publishing();
  phase_ = Phase::idle;
  task_.reset();
  last_failure_.reset();
  last_save_seconds_ = seconds_since(begin_);
  last_checkpoint_ = checkpoint_path(checkpoints_, step_);
  logger_.info("Saved ", last_checkpoint_.string(), ": ", fixed(static_cast<double>(bytes_) / 1e6, 1),
               " MB in ", fixed(writing_seconds_, 2), " s, training waited ",
               fixed(options_.asynchronous ? snapshot_seconds_ : seconds_since(begin_), 3), " s");
  begin_removal();
}

void Checkpointing::give_up(const Error& failure) {
  phase_ = Phase::idle;
  task_.reset();
  to_trust_.reset();
  trusted_.reset();
  if (world_.rank() == 0 && (!options_.check_place || !failure_of(options_.check_place)))
    discard_checkpoint(checkpoints_, step_);
  last_failure_ = join_text("Saving after step ", step_, " failed: ", failure.what());
  last_fault_ = failure.fault();
  if (world_.rank() != 0) return;
  const bool goes_on = follows_ == Follows::training, has_none = newest_checkpoint().empty();
  logger_.warning(*last_failure_, goes_on ? " Training goes on; " : " ",
                  has_none ? (goes_on ? "there is no checkpoint yet." : "There is no checkpoint.")
                           : join_text(goes_on ? "the" : "The", " last good checkpoint is ",
                                       newest_checkpoint().string(), "."));
}

void Checkpointing::finish() {
  while (phase_ != Phase::idle) {
    if (task_) task_->wait();
    end_phase();
  }
  end_removal();
}

}  // namespace conclave
