// MachineFacts: what /proc and /sys say of this machine's processors and memory, and of the part that this
// process may use. That part follows from affinity, and from the limits of the control group that a container
// or a batch system has put it in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace conclave {

struct NumaNode {
  int number = 0;
  std::vector<int> processors;
};

struct MachineFacts {
  std::string processor_name;   // "" where the machine does not say
  std::vector<int> processors;  // online: hardware threads, by the kernel's numbers
  int cores = 0;                // that these belong to; as many as processors where unknown
  std::vector<NumaNode> nodes;  // with processors; one where the machine does not say
  double quota = 0;             // processors' worth of time that the control group gets; 0: no limit
  std::int64_t memory = 0, available = 0;  // bytes
  std::int64_t memory_limit = 0;           // of the control group, bytes; 0: no limit
  std::string governor;                    // of the clock: "performance"; "" unknown
  std::string huge_pages;                  // "always", "madvise", "never"; "" unknown

  /// Counts the cores that ranks can fill: no more than the quota lets run.
  int usable_cores() const;
};

/// Reads below `root`. A fact that is not there stays unknown and never throws.
MachineFacts read_machine(const std::filesystem::path& root = "/");

/// "0-2,8" -> 0, 1, 2, 8: parse_processor_list reads the kernel's way of writing sets, and leaves out what it
/// does not understand. processor_list_text writes it.
std::vector<int> parse_processor_list(const std::string& text);
std::string processor_list_text(const std::vector<int>& processors);

/// Returns the processors that this thread may run on, in order.
std::vector<int> bound_processors();

}  // namespace conclave
