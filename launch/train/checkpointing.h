// Checkpointing saves a run while it goes on. A save copies what each rank writes into the memory image of
// its file and returns; a background thread brings the image to the disk. All ranks learn of each other's
// progress in the all-reduce that every step has anyway. When all files are safe, rank 0 publishes the
// checkpoint, again in the background. The background threads call neither MPI nor HDF5. One save is under
// way at a time. A save that fails is told of in one sentence, leaves nothing behind and does not end the
// run. A state whose values are not finite fails to be saved, so a good checkpoint never gives way to it.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "framework/store/checkpoint_protocol.h"
#include "framework/store/shard.h"
#include "framework/telemetry/logger.h"
#include "launch/train/background_task.h"
#include "launch/train/trainer.h"

namespace conclave {

struct CheckpointingOptions {
  std::int64_t keep = 0;  // newest checkpoints that stay; 0: all
  bool asynchronous = true;
  std::int64_t least_share_bytes = std::int64_t{1} << 20;  // of a tensor that several ranks hold alike
  /// Throws on rank 0 where the directory is not the run's any more. Nothing gets its name there then, and
  /// nothing is cleared away.
  std::function<void()> check_place{};
  std::filesystem::path resumed_from{};  // the checkpoint that the run goes on from; empty: none
};

/// A save that nothing follows says so when it fails.
enum class Follows { training, nothing };

class Checkpointing {
 public:
  /// `checkpoints` is the directory of the run's checkpoints, the same on all ranks.
  Checkpointing(std::filesystem::path checkpoints, const CheckpointingOptions& options, Communicator& world,
                Logger& logger);
  /// Waits for the background thread. Files that were not published are left for the next start to clear
  /// away.
  ~Checkpointing();

  /// Saves the trainer's state as it is now. Rank 0 does `before` first, and its failure is the save's.
  /// Returns once training may go on. That is at once or, when saving is not asynchronous, when the
  /// checkpoint is there. An earlier save is waited for. Collective.
  void save(const Trainer& trainer, const std::function<void()>& before = {},
            Follows follows = Follows::training);

  /// Says that the state that was saved last has proven good: a step or an evaluation that began with it had
  /// finite numbers. Only now may older checkpoints go, in the background; without this they stay. The call
  /// is the same on all ranks.
  void trust_last_save();
  /// Says that the trainer goes on from another state, so its steps prove nothing of the one that was saved
  /// last.
  void distrust_last_save() { to_trust_.reset(); }

  /// Tells Trainer::step how far this rank's background work is.
  std::vector<double> votes() const;
  /// Receives the sum of the votes of all ranks. Collective when it says that all ranks are ready to go on.
  void after_step(const std::vector<double>& votes);

  /// Waits until no save is under way. Collective.
  void finish();

  bool is_saving() const { return phase_ != Phase::idle; }
  /// Returns the newest checkpoint that was published, on all ranks; empty before the first.
  const std::filesystem::path& last_checkpoint() const { return last_checkpoint_; }
  /// Returns the newest checkpoint that was published, but before the first one that which the run resumed
  /// from.
  const std::filesystem::path& newest_checkpoint() const {
    return last_checkpoint_.empty() ? options_.resumed_from : last_checkpoint_;
  }
  /// Says why the last save failed; none if it did not.
  const std::optional<std::string>& last_failure() const { return last_failure_; }
  Fault last_fault() const { return last_fault_; }  // with a last failure
  /// Returns how long save() has kept this rank from training, all saves together.
  double blocking_seconds() const { return blocking_seconds_; }
  /// Returns the time from the beginning of the last save until its checkpoint was there.
  double last_save_seconds() const { return last_save_seconds_; }

 private:
  enum class Phase { idle, writing, publishing };
  using Clock = std::chrono::steady_clock;

  /// Copies what this rank writes into its image; on rank 0 composes the index. Collective.
  std::optional<Error> take_snapshot(const Trainer& trainer);
  void start_writing();
  void start_publishing();
  /// Goes on to the next phase when the background work of all ranks is finished. Collective.
  void end_phase();
  void give_up(const Error& failure);
  /// Begins to remove, on rank 0, the checkpoints that `keep` has no room for, once the newest one is
  /// published and trusted.
  void begin_removal();
  void end_removal();

  std::filesystem::path checkpoints_;
  CheckpointingOptions options_;
  Communicator& world_;
  Logger& logger_;

  std::vector<Piece> pieces_;                   // what shard_ is laid out for
  std::unique_ptr<ShardImage> shard_;           // written by the thread while a save is under way
  std::vector<std::vector<Piece>> all_pieces_;  // [ranks]; rank 0 only
  FileImage index_;                             // rank 0 only
  Phase phase_ = Phase::idle;
  std::int64_t step_ = 0;           // of the save under way
  std::int64_t bytes_ = 0;          // of all ranks' files
  std::vector<FileEntry> written_;  // by this rank
  Clock::time_point begin_;
  double snapshot_seconds_ = 0, writing_seconds_ = 0, blocking_seconds_ = 0, last_save_seconds_ = 0;
  std::filesystem::path last_checkpoint_;
  std::optional<std::string> last_failure_;
  Fault last_fault_ = Fault::machine;
  Follows follows_ = Follows::training;
  std::optional<std::int64_t> to_trust_;     // the step saved last, until something proves its state good
  std::optional<std::int64_t> trusted_;      // its older ones have not been removed yet
  std::unique_ptr<BackgroundTask> removal_;  // rank 0 only
  std::int64_t removal_step_ = 0;            // the one that is kept whatever its age
  std::unique_ptr<BackgroundTask>
      task_;  // null: this rank has nothing to do in this phase; last: uses the rest
};

}  // namespace conclave
