// Tests that watch and disturb the system calls which put bytes on the disk: a program that compiles
// system_calls.cpp has its own write, fsync, rename and renameat2 in front of the C library's.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace conclave {

struct SystemCall {
  std::string name;       // write, fsync, rename, exchange
  std::string path;       // of the file written or synced; where a rename comes from
  std::string other;      // where a rename goes to
  std::size_t bytes = 0;  // of a write
};

/// The fate of a call.
struct Verdict {
  int error = 0;             // fails with this errno
  bool interrupted = false;  // fails with EINTR, once
  bool shortened = false;    // writes only half of the bytes
};

/// Asked before each call on a path that contains `below`; any thread may ask. An empty function: nothing is
/// watched.
using SystemCallHook = std::function<Verdict(const SystemCall&)>;
void watch_system_calls(const std::string& below, SystemCallHook hook);

}  // namespace conclave
