#include "framework/telemetry/terminal_writer.h"

#include <sys/stat.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "framework/base/error.h"
#include "framework/telemetry/terminal.h"

namespace conclave {
namespace {

constexpr auto patience = std::chrono::seconds(2);  // at the end

bool is_file(int descriptor) {
  struct ::stat status {};
  return ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
}

}  // namespace

struct TerminalWriter::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::string> waiting;
  std::size_t most_bytes = 0, bytes = 0;  // of what waits and is being written
  std::size_t left_out = 0;               // texts, since the last one that was taken
  bool has_thread = false, ended = false;

  void run(int descriptor) {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return ended || !waiting.empty(); });
      if (waiting.empty()) return;
      const std::string text = std::move(waiting.front());
      waiting.pop_front();
      lock.unlock();
      write_all(descriptor, text);  // a terminal that is gone is no reason to stop a run
      lock.lock();
      bytes -= text.size();
      changed.notify_all();
    }
  }

  void add(const std::string& text) {
    bytes += text.size();
    waiting.push_back(text);
  }
};

TerminalWriter::TerminalWriter(int descriptor, std::size_t most_waiting)
    : descriptor_(descriptor),
      at_once_(descriptor < 0 || is_file(descriptor)),
      shared_(std::make_shared<Shared>()) {
  shared_->most_bytes = most_waiting;
}

TerminalWriter::~TerminalWriter() {
  std::unique_lock lock(shared_->mutex);
  shared_->changed.wait_for(lock, patience, [&] { return shared_->bytes == 0; });
  shared_->waiting.clear();
  shared_->ended = true;
  shared_->changed.notify_all();
}

void TerminalWriter::start_thread() {
  try {
    std::thread([shared = shared_, descriptor = descriptor_] { shared->run(descriptor); }).detach();
    shared_->has_thread = true;
  } catch (const std::system_error&) {
    at_once_ = true;
  }
}

void TerminalWriter::write(const std::string& text) {
  std::unique_lock lock(shared_->mutex);
  if (!at_once_ && !shared_->has_thread) start_thread();
  if (at_once_) {
    lock.unlock();
    write_all(descriptor_, text);
    return;
  }
  if (shared_->bytes + text.size() > shared_->most_bytes) {
    ++shared_->left_out;
    return;
  }
  if (shared_->left_out > 0)
    shared_->add(join_text("(", shared_->left_out, shared_->left_out == 1 ? " line is" : " lines are",
                           " left out here, as nothing was read for a while; the log file has all)\n"));
  shared_->left_out = 0;
  shared_->add(text);
  shared_->changed.notify_all();
}

bool TerminalWriter::is_behind() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->bytes > 0;
}

bool write_within(double seconds, int descriptor, const std::string& text) {
  struct Outcome {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false, written = false;
  };
  const auto outcome = std::make_shared<Outcome>();
  try {
    std::thread([outcome, descriptor, text] {
      const bool written = write_all(descriptor, text);
      const std::lock_guard lock(outcome->mutex);
      outcome->written = written;
      outcome->done = true;
      outcome->changed.notify_all();
    }).detach();
  } catch (const std::system_error&) {
    return write_all(descriptor, text);
  }
  std::unique_lock lock(outcome->mutex);
  outcome->changed.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return outcome->done; });
  return outcome->done && outcome->written;
}

}  // namespace conclave
