// The order in which a checkpoint reaches the disk, and what is left when that order is cut off at any point:
// killed before every single system call, with everything or any part lost that had not been synced; or
// refused at every single one by a full, failing or interrupting disk. CONCLAVE_POWER_CUTS says how many
// random losses.
#include "framework/store/checkpoint_protocol.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>

#include "framework/base/random.h"
#include "framework/store/checkpoint_directory.h"
#include "tests/counts.h"
#include "tests/framework/store/saved_checkpoint.h"
#include "tests/framework/store/system_calls.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

std::vector<SystemCall> calls_of(const fs::path& below, const std::function<void()>& action) {
  std::vector<SystemCall> calls;
  watch_system_calls(below.string(), [&](const SystemCall& call) {
    calls.push_back(call);
    return Verdict{};
  });
  action();
  watch_system_calls("", {});
  return calls;
}

/// The place of the last call of this kind whose path ends so; -1: none.
std::ptrdiff_t last(const std::vector<SystemCall>& calls, const std::string& name, const std::string& end) {
  for (std::size_t i = calls.size(); i-- > 0;)
    if (calls[i].name == name && calls[i].path.ends_with(end)) return static_cast<std::ptrdiff_t>(i);
  return -1;
}

TEST(Protocol, FilesThenManifestThenNameEachOnTheDiskBeforeTheNext) {
  const ScratchDirectory scratch;
  const auto calls = calls_of(scratch.path(), [&] { save(scratch.path(), 6); });
  const std::string partial = "step-00000006.partial";
  const std::ptrdiff_t manifest_written = last(calls, "write", "manifest.json.partial"),
                       manifest_safe = last(calls, "fsync", "manifest.json.partial"),
                       manifest_named = last(calls, "rename", "manifest.json.partial"),
                       names_safe = last(calls, "fsync", partial), published = last(calls, "rename", partial),
                       publication_safe = last(calls, "fsync", scratch.path().filename().string());
  for (const char* file : {"/rank-00000.h5", "/index.h5"}) {
    const std::ptrdiff_t written = last(calls, "write", file), safe = last(calls, "fsync", file);
    EXPECT_GE(written, 0) << file;
    EXPECT_GT(safe, written) << file;
    EXPECT_GT(manifest_written, safe) << file;
  }
  EXPECT_GT(manifest_safe, manifest_written);
  EXPECT_GT(manifest_named, manifest_safe);
  EXPECT_GT(names_safe, manifest_named);
  EXPECT_GT(published, names_safe);
  EXPECT_GT(publication_safe, published);
}

/// A log that a killed child leaves to its parent.
struct SharedLog {
  static constexpr int most = 200, length = 400;
  int calls = 0;
  char name[most][16], path[most][length], other[most][length];
};

/// A power cut: files written and not synced since are empty.
void lose_what_was_not_synced(const SharedLog& log) {
  std::map<std::string, bool> dirty;
  for (int i = 0; i < log.calls; ++i) {
    const std::string name = log.name[i], path = log.path[i], other = log.other[i];
    if (name == "write") dirty[path] = true;
    if (name == "fsync") dirty[path] = false;
    if (name != "rename" && name != "exchange") continue;
    std::map<std::string, bool> after;
    for (const auto& [file, is_dirty] : dirty) {
      const auto moved = [&](const std::string& from, const std::string& to) {
        return file == from || file.starts_with(from + "/") ? to + file.substr(from.size()) : "";
      };
      const std::string forth = moved(path, other), back = name == "exchange" ? moved(other, path) : "";
      after[!forth.empty() ? forth : !back.empty() ? back : file] = is_dirty;
    }
    dirty = after;
  }
  for (const auto& [file, is_dirty] : dirty)
    if (is_dirty && fs::is_regular_file(file)) fs::resize_file(file, 0);
}

/// Where something that was at `path` before call `first` is after all later ones but those that are undone.
std::string moved_on(std::string path, const SharedLog& log, int first, const std::vector<bool>& undone) {
  for (int i = first; i < log.calls; ++i) {
    const std::string name = log.name[i], from = log.path[i], to = log.other[i];
    if ((name != "rename" && name != "exchange") || undone[static_cast<std::size_t>(i)]) continue;
    const auto is_below = [&](const std::string& above) {
      return path == above || path.starts_with(above + "/");
    };
    if (is_below(from))
      path = to + path.substr(from.size());
    else if (name == "exchange" && is_below(to))
      path = from + path.substr(to.size());
  }
  return path;
}

/// A power cut of a disk that orders nothing by itself: of each file what was written since its last fsync is
/// there, in part, as zeros or not at all; a name that its directory's fsync has not reached may be missing,
/// and each rename that it has not reached may be undone.
void lose_at_random(const SharedLog& log, const RandomKey& key) {
  std::vector<bool> undone(static_cast<std::size_t>(log.calls), false);
  const auto synced_later = [&](const std::string& path, int i) {
    for (int later = i + 1; later < log.calls; ++later) {
      const std::string now = moved_on(path, log, i + 1, undone), synced = log.path[later];
      if (std::string(log.name[later]) == "fsync" &&
          (synced == path || moved_on(synced, log, later, undone) == now))
        return true;
    }
    return false;
  };
  for (int i = 0; i < log.calls; ++i) {
    const std::string path = log.path[i], now = moved_on(path, log, i, undone);
    if (std::string(log.name[i]) != "write" || !fs::is_regular_file(now)) continue;
    const auto choose = [&](std::uint64_t what, std::uint64_t limit) {
      return key.with("write").with(static_cast<std::uint64_t>(i)).below(what, limit);
    };
    if (!synced_later(path, i)) {
      const std::uint64_t bytes = fs::file_size(now), kind = choose(0, 4);
      if (kind == 0) fs::resize_file(now, 0);
      if (kind == 1) fs::resize_file(now, choose(1, bytes + 1));
      if (kind == 2 && bytes > 0) {
        std::fstream file(now, std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(static_cast<std::streamoff>(choose(2, bytes)));
        file << std::string(static_cast<std::size_t>(choose(3, bytes) + 1), '\0');
      }
    }
    if (!synced_later(fs::path(path).parent_path().string(), i) && choose(4, 3) == 0) fs::remove(now);
  }
  for (int i = log.calls - 1; i >= 0; --i) {
    const std::string name = log.name[i];
    if (name != "rename" && name != "exchange") continue;
    if (synced_later(fs::path(log.other[i]).parent_path().string(), i)) continue;
    if (key.with("name").below(static_cast<std::uint64_t>(i), 2) == 0) continue;
    const fs::path from = moved_on(fs::path(log.path[i]).parent_path().string(), log, i + 1, undone) /
                          fs::path(log.path[i]).filename(),
                   to = moved_on(log.other[i], log, i + 1, undone);
    undone[static_cast<std::size_t>(i)] = true;
    if (!fs::exists(to)) continue;
    const fs::path between = fs::path(to) += ".between";
    fs::rename(to, between);
    if (name == "exchange" && fs::exists(from)) fs::rename(from, to);
    fs::rename(between, from);
  }
}

/// Runs the action in a child that dies before its n-th system call; false when it had fewer. `lose` is what
/// happens to the disk then.
bool killed_at(int n, const fs::path& below, const std::function<void()>& action,
               const std::function<void(const SharedLog&)>& lose = lose_what_was_not_synced) {
  void* memory = mmap(nullptr, sizeof(SharedLog), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* log = new (memory) SharedLog;
  const pid_t child = fork();
  if (child == 0) {
    watch_system_calls(below.string(), [&](const SystemCall& call) {
      if (log->calls == n) raise(SIGKILL);
      std::strncpy(log->name[log->calls], call.name.c_str(), 15);
      std::strncpy(log->path[log->calls], call.path.c_str(), SharedLog::length - 1);
      std::strncpy(log->other[log->calls], call.other.c_str(), SharedLog::length - 1);
      ++log->calls;
      return Verdict{};
    });
    action();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  lose(*log);
  munmap(memory, sizeof(SharedLog));
  return WIFSIGNALED(status);
}

TEST(Protocol, KilledBeforeAnySystemCallTheOldOrTheNewIsThere) {
  int deaths = 0, old_ones = 0;
  for (const std::int64_t step : {6, 5})  // a new checkpoint, and one in place of another of its step
    for (int n = 0;; ++n) {
      const ScratchDirectory scratch;
      save(scratch.path(), 5, 1);
      const bool killed = killed_at(n, scratch.path(), [&] { save(scratch.path(), step, 42); });
      const FoundCheckpoint found = newest_checkpoint(scratch.path());
      ASSERT_TRUE(found.path) << "killed before call " << n;
      EXPECT_TRUE(found.rejected.empty()) << "killed before call " << n << ": " << found.rejected[0];
      const CheckpointReader reader(*found.path);
      const float first = reader.read_all<float>("model/layers.0.weight")[0];
      const bool is_old = reader.step() == 5 && first == 1, is_new = reader.step() == step && first == 42;
      EXPECT_TRUE(is_old || is_new) << "step " << reader.step() << ", " << first;
      old_ones += is_old;
      remove_partial_checkpoints(scratch.path());
      for (const std::string& name : names_in(scratch.path())) EXPECT_EQ(name.size(), 13u) << name;
      save(scratch.path(), 7, 43);
      EXPECT_EQ(newest_checkpoint(scratch.path()).path, scratch.path() / "step-00000007");
      if (!killed) {
        EXPECT_TRUE(is_new);
        break;
      }
      ++deaths;
    }
  EXPECT_GE(deaths, 20);
  EXPECT_GE(old_ones, 16);
}

TEST(Protocol, APowerCutAtAnyMomentLeavesTheOldOrTheNew) {
  const int wanted = test::count_from_environment("CONCLAVE_POWER_CUTS", 60);
  int states = 0, old_ones = 0, n = 0;
  for (std::uint64_t state = 0; states < wanted; ++state) {
    const ScratchDirectory scratch;
    save(scratch.path(), 5, 1);
    const std::int64_t step =
        state % 2 == 0 ? 6 : 5;  // a new checkpoint, and one in place of another of its step
    const RandomKey key = RandomKey(23).with(state);
    const bool killed = killed_at(
        n, scratch.path(),
        [&] {
          save(scratch.path(), step, 42);
          remove_old_checkpoints(scratch.path(), step, 1);
        },
        [&](const SharedLog& log) { lose_at_random(log, key); });
    remove_partial_checkpoints(scratch.path());
    const FoundCheckpoint found = newest_checkpoint(scratch.path());
    ASSERT_TRUE(found.path) << "power cut before call " << n << ", state " << state;
    EXPECT_TRUE(found.rejected.empty()) << "power cut before call " << n << ": " << found.rejected[0];
    const CheckpointReader reader(*found.path);
    const float first = reader.read_all<float>("model/layers.0.weight")[0];
    const bool is_old = reader.step() == 5 && first == 1, is_new = reader.step() == step && first == 42;
    EXPECT_TRUE(is_old || is_new) << "step " << reader.step() << ", " << first;
    if (!killed) {
      EXPECT_TRUE(is_new) << "state " << state;
    }
    states += killed;
    old_ones += is_old;
    if (state % 2 == 1) n = killed ? n + 1 : 0;  // both kinds at each call, then from the front again
  }
  EXPECT_GE(old_ones, wanted / 3);
  EXPECT_LT(old_ones, wanted);
  std::printf("%d power cuts: the old one %d times, the new one %d times\n", states, old_ones,
              states - old_ones);
}

TEST(Protocol, RefusedAtAnySystemCallItIsASentenceAndTheOldOneStays) {
  for (const int error : {ENOSPC, EIO, EROFS})
    for (std::size_t n = 0;; ++n) {
      const ScratchDirectory scratch;
      save(scratch.path(), 5);
      std::size_t calls = 0;
      SystemCall refused;
      watch_system_calls(scratch.path().string(), [&](const SystemCall& call) {
        if (calls++ != n) return Verdict{};
        refused = call;
        return Verdict{.error = error};
      });
      std::string sentence;
      try {
        save(scratch.path(), 6);
      } catch (const Error& failure) {
        EXPECT_EQ(failure.fault(), Fault::machine);
        sentence = failure.what();
      }
      watch_system_calls("", {});
      if (refused.name.empty()) {
        EXPECT_TRUE(sentence.empty()) << sentence;
        EXPECT_GE(n, 10u);
        break;
      }
      expect_words(sentence, {"Cannot ", std::strerror(error)});
      // Only after the name has been given can it be there: then a sync of the directory was refused.
      const std::vector<std::string> names = names_in(scratch.path());
      if (names.size() > 1) {
        EXPECT_EQ(refused.name + refused.path, "fsync" + scratch.path().string());
        EXPECT_EQ(names, (std::vector<std::string>{"step-00000005", "step-00000006"}));
      }
      EXPECT_TRUE(newest_checkpoint(scratch.path()).rejected.empty());
    }
}

TEST(Protocol, InterruptedAndShortWritesGoOn) {
  const ScratchDirectory scratch;
  int calls = 0;
  watch_system_calls(scratch.path().string(), [&](const SystemCall&) {
    ++calls;
    return Verdict{.interrupted = calls % 3 == 1, .shortened = calls % 3 == 2};
  });
  save(scratch.path(), 6, 42);
  watch_system_calls("", {});
  EXPECT_EQ(CheckpointReader(scratch.path() / "step-00000006").read_all<float>("model/layers.0.weight")[0],
            42);
  EXPECT_GT(calls, 20);  // without any of it there are about ten
}

TEST(Protocol, AFileThatIsNotThereWithItsSizeIsNotPublished) {
  const ScratchDirectory scratch;
  begin_checkpoint(scratch.path(), 6);
  const std::vector<std::byte> content(100);
  const FileEntry file = write_checkpoint_file(scratch.path(), 6, "rank-00000.h5", content);
  expect_words(sentence_of(Fault::machine,
                           [&] {
                             commit_checkpoint(scratch.path(), 6, {file, {"rank-00001.h5", 100, "0"}});
                           }),
               {"rank-00001.h5", "not there", "same output directory"});
  expect_words(sentence_of(Fault::machine,
                           [&] {
                             commit_checkpoint(scratch.path(), 6, {{file.name, 99, file.checksum}});
                           }),
               {"written with 99 bytes", "has 100"});
  EXPECT_FALSE(fs::exists(scratch.path() / "step-00000006"));
  discard_checkpoint(scratch.path(), 6);
  EXPECT_TRUE(names_in(scratch.path()).empty());
}

}  // namespace
}  // namespace conclave
