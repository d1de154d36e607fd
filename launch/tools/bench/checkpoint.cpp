// Checkpoint: what a save takes, in a directory of its own that is gone afterwards.
#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "framework/store/durable_file.h"
#include "launch/tools/bench/bench.h"
#include "launch/train/checkpointing.h"
#include "parallel/agreement.h"

namespace conclave {
namespace {

namespace fs = std::filesystem;

/// A logger that nobody hears.
class Silence {
 public:
  explicit Silence(int rank) : file_(::open("/dev/null", O_WRONLY | O_CLOEXEC)) {
    check(file_ >= 0, Fault::machine, "bench: /dev/null cannot be opened: ", std::strerror(errno));
    logger_ = std::make_unique<Logger>(
        LoggerOptions{.rank = rank, .terminal = file_, .style = TerminalStyle::plain});
  }
  ~Silence() {
    logger_.reset();
    ::close(file_);
  }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;
  Logger& logger() { return *logger_; }

 private:
  int file_;
  std::unique_ptr<Logger> logger_;
};

/// A directory that rank 0 makes and removes.
class ScratchDirectory {
 public:
  ScratchDirectory(Communicator& world, const fs::path& parent) : world_(world) {
    const std::string name = broadcast_text(world, join_text("conclave-bench-", ::getpid()), 0);
    path_ = parent / name;
    agree(world, [&] {
      if (world.rank() == 0) make_directories(path_);
    });
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    if (world_.rank() == 0) fs::remove_all(path_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  const fs::path& path() const { return path_; }

 private:
  Communicator& world_;
  fs::path path_;
};

}  // namespace

void bench_checkpoint(Bench& bench) {
  Communicator& world = bench.mesh.world();
  const ScratchDirectory scratch(world, bench.directory);
  Trainer trainer(bench.recipe, bench.mesh, bench_batches(bench.recipe), bench.device);
  Silence silence(world.rank());
  Checkpointing saving(scratch.path() / "waiting", {.keep = 1, .asynchronous = false}, world,
                       silence.logger());
  Checkpointing beside(scratch.path() / "beside", {.keep = 1, .asynchronous = true}, world, silence.logger());
  std::vector<double> rates, plain_rates, blocked, copies;
  std::vector<std::byte> content, copy;
  for (std::int64_t repeat = -1; repeat < bench.repeats; ++repeat) {
    world.barrier();
    const double seconds = seconds_of([&] { saving.save(trainer); });
    saving.trust_last_save();  // so that older ones go, before the next measurement
    saving.finish();
    check(!saving.last_failure(), Fault::machine, "bench: ", saving.last_failure().value_or(""));
    const auto own =
        static_cast<std::size_t>(fs::file_size(saving.last_checkpoint() / shard_name(world.rank())));
    const double all = sum_over_ranks(world, static_cast<double>(own));
    content.resize(own, std::byte{1});
    copy.resize(own, std::byte{2});

    world.barrier();
    const double plain = seconds_of([&] {
      agree(world, [&] {
        DurableFile file(scratch.path() / join_text("plain-", world.rank()));
        file.write(content.data(), content.size());
        file.sync();
      });
    });

    const double before = beside.blocking_seconds();
    beside.save(trainer);
    const double waited = beside.blocking_seconds() - before;
    beside.finish();
    beside.trust_last_save();
    beside.finish();
    check(!beside.last_failure(), Fault::machine, "bench: ", beside.last_failure().value_or(""));
    const double copied = seconds_of([&] { std::memcpy(copy.data(), content.data(), own); });
    if (repeat < 0) continue;  // memory is taken
    rates.push_back(all / seconds);
    plain_rates.push_back(all / plain);
    blocked.push_back(waited);
    copies.push_back(copied);
  }
  bench.figures.push_back({.subject = "checkpoint",
                           .name = join_text("saving, until it is there, ", world.size(), " ranks"),
                           .unit = "B/s",
                           .values = rates,
                           .limit = "writing and syncing plainly",
                           .limits = plain_rates});
  bench.figures.push_back({.subject = "checkpoint",
                           .name = "training waits when saving goes on beside it",
                           .unit = "s",
                           .values = blocked,
                           .limit = "memcpy of a rank's bytes",
                           .limits = copies,
                           .better = Better::lower});
}

}  // namespace conclave
