#include "launch/tools/doctor/machine_facts.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <set>
#include <sstream>

namespace conclave {
namespace {

using std::filesystem::path;

std::string first_line(const path& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

/// A whole number, or 0 where there is none ("max" among them).
std::int64_t number_in(const std::string& text) {
  std::int64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

/// The value behind "name : value" in a file of such lines; of several the first.
std::string value_of(const path& file, const std::string& name) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (!line.starts_with(name)) continue;
    const std::size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
    if (begin != std::string::npos) return line.substr(begin);
  }
  return "";
}

void tighten(double& limit, double other) {
  if (other > 0 && (limit == 0 || other < limit)) limit = other;
}

/// A group of control group version 1 or 2, and all groups above it: the tightest of their limits counts. A
/// container often sees its own group as the root, so places that are not there are passed over.
void read_group(const path& mount, path group, double& quota, double& memory) {
  for (;; group = group.parent_path()) {
    const path place = mount / group.relative_path();
    std::istringstream two(first_line(place / "cpu.max"));
    std::string time;
    double period = 0;
    if (two >> time >> period && period > 0) tighten(quota, static_cast<double>(number_in(time)) / period);
    const auto period_1 = static_cast<double>(number_in(first_line(place / "cpu.cfs_period_us")));
    if (period_1 > 0)
      tighten(quota, static_cast<double>(number_in(first_line(place / "cpu.cfs_quota_us"))) / period_1);
    for (const char* file : {"memory.max", "memory.limit_in_bytes"}) {
      const auto bytes = static_cast<double>(number_in(first_line(place / file)));
      if (bytes < 1e18) tighten(memory, bytes);  // version 1 writes "no limit" as nearly 2^63
    }
    if (!group.has_relative_path()) return;
  }
}

void read_groups(const path& root, MachineFacts& facts) {
  double quota = 0, memory = 0;
  std::ifstream groups(root / "proc/self/cgroup");
  const path mount = root / "sys/fs/cgroup";
  for (std::string line; std::getline(groups, line);) {  // "0::/user.slice" or "4:cpu,cpuacct:/docker/1"
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) read_group(mount, group, quota, memory);
    std::istringstream names(controllers);
    for (std::string name; std::getline(names, name, ',');)
      if (name == "cpu" || name == "memory") read_group(mount / name, group, quota, memory);
  }
  facts.quota = quota;
  facts.memory_limit = static_cast<std::int64_t>(memory);
}

}  // namespace

int MachineFacts::usable_cores() const {
  return quota > 0 ? std::clamp(static_cast<int>(quota), 1, std::max(cores, 1)) : std::max(cores, 1);
}

std::vector<int> parse_processor_list(const std::string& text) {
  std::vector<int> processors;
  std::istringstream ranges(text);
  for (std::string range; std::getline(ranges, range, ',');) {
    int first = 0, last = 0;
    const char* const end = range.data() + range.size();
    const auto [behind, status] = std::from_chars(range.data(), end, first);
    if (status != std::errc()) continue;
    last = first;
    if (behind != end && *behind == '-') std::from_chars(behind + 1, end, last);
    constexpr int most = 1 << 16;  // a damaged file is no reason to fill memory
    for (int number = first; number <= last && number - first < most; ++number) processors.push_back(number);
  }
  return processors;
}

std::string processor_list_text(const std::vector<int>& processors) {
  std::string text;
  for (std::size_t i = 0; i < processors.size();) {
    std::size_t end = i + 1;
    while (end < processors.size() && processors[end] == processors[end - 1] + 1) ++end;
    text += (text.empty() ? "" : ",") + std::to_string(processors[i]);
    if (end > i + 1) text += "-" + std::to_string(processors[end - 1]);
    i = end;
  }
  return text;
}

std::vector<int> bound_processors() {
  std::vector<int> processors;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return processors;
  for (int number = 0; number < CPU_SETSIZE; ++number)
    if (CPU_ISSET(number, &set)) processors.push_back(number);
  return processors;
}

MachineFacts read_machine(const path& root) {
  MachineFacts facts;
  const path processors = root / "sys/devices/system/cpu";
  facts.processor_name = value_of(root / "proc/cpuinfo", "model name");
  facts.processors = parse_processor_list(first_line(processors / "online"));
  std::set<std::string> cores;
  for (const int number : facts.processors) {
    const path topology = processors / ("cpu" + std::to_string(number)) / "topology";
    std::string siblings = first_line(topology / "thread_siblings_list");
    cores.insert(siblings.empty() ? std::to_string(number) : siblings);
  }
  facts.cores = static_cast<int>(cores.size());
  const path nodes = root / "sys/devices/system/node";
  for (const int number : parse_processor_list(first_line(nodes / "online"))) {
    NumaNode node{number,
                  parse_processor_list(first_line(nodes / ("node" + std::to_string(number)) / "cpulist"))};
    if (!node.processors.empty()) facts.nodes.push_back(std::move(node));
  }
  if (facts.nodes.empty()) facts.nodes.push_back({0, facts.processors});
  facts.memory = 1024 * number_in(value_of(root / "proc/meminfo", "MemTotal"));
  facts.available = 1024 * number_in(value_of(root / "proc/meminfo", "MemAvailable"));
  read_groups(root, facts);
  facts.governor = first_line(processors / "cpu0/cpufreq/scaling_governor");
  const std::string pages = first_line(root / "sys/kernel/mm/transparent_hugepage/enabled");
  const std::size_t begin = pages.find('['), end = pages.find(']');
  if (begin != std::string::npos && end > begin) facts.huge_pages = pages.substr(begin + 1, end - begin - 1);
  return facts;
}

}  // namespace conclave
