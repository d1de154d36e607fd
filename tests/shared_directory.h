// A directory that all ranks of a test share.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <system_error>

#include "parallel/communicator.h"
#include "tests/mpi_world.h"

namespace conclave::test {

/// Made and removed by the first rank. Collective.
class SharedDirectory {
 public:
  SharedDirectory() {
    // In memory where that can be: hundreds of saves, and a disk has nothing to add here.
    const std::filesystem::path parent =
        ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : std::filesystem::temp_directory_path();
    std::string folder = (parent / "conclave-test-XXXXXX").string();
    if (world_->rank() == 0 && ::mkdtemp(folder.data()) == nullptr) folder.clear();
    path_ = broadcast_text(*world_, folder, 0);
  }
  ~SharedDirectory() {
    world_->barrier();
    std::error_code ignored;
    if (world_->rank() == 0) std::filesystem::remove_all(path_, ignored);
  }
  SharedDirectory(const SharedDirectory&) = delete;
  SharedDirectory& operator=(const SharedDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::shared_ptr<Communicator> world_ = mpi_world();
  std::filesystem::path path_;
};

}  // namespace conclave::test
