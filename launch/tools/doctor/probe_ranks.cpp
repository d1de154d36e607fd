// The probe of ranks: where they run, and whether they are in each other's way.
#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "framework/base/error.h"
#include "framework/base/text.h"
#include "launch/tools/doctor/probes.h"

namespace conclave {
namespace {

std::string nodes_text(const std::vector<int>& processors, const MachineFacts& facts) {
  std::vector<int> numbers;
  for (const NumaNode& node : facts.nodes)
    if (std::any_of(node.processors.begin(), node.processors.end(), [&](int processor) {
          return std::find(processors.begin(), processors.end(), processor) != processors.end();
        }))
      numbers.push_back(node.number);
  return (numbers.size() > 1 ? "NUMA nodes " : "NUMA node ") + processor_list_text(numbers);
}

/// The facts about the ranks of one host.
void examine_host(Section& section, const std::string& host, const std::vector<const RankPlace*>& ranks,
                  bool yields) {
  std::set<int> together;
  std::size_t sum = 0, threads = 0;
  bool all_equal = true;
  for (const RankPlace* rank : ranks) {
    together.insert(rank->processors.begin(), rank->processors.end());
    sum += rank->processors.size();
    threads += static_cast<std::size_t>(rank->threads);
    all_equal = all_equal && rank->processors == ranks[0]->processors;
    if (static_cast<std::size_t>(rank->threads) > rank->processors.size())
      section.problem(
          join_text("on ", host, " a rank with ", counted(rank->threads, "thread"), " is bound to ",
                    counted(static_cast<std::int64_t>(rank->processors.size()), "processor")),
          "mpirun --map-by slot:PE=THREADS --bind-to core, srun --cpus-per-task=THREADS, or --bind-to none");
  }
  const std::string amounts = join_text(counted(static_cast<std::int64_t>(threads), "thread"), " of ",
                                        counted(static_cast<std::int64_t>(ranks.size()), "rank"), " on ",
                                        counted(static_cast<std::int64_t>(together.size()), "processor"));
  if (threads > together.size()) {
    section.note(amounts + " of " + host + ": they take turns",
                 "fine for tests; for speed fewer ranks, or OMP_NUM_THREADS=1");
    if (!yields)
      section.problem("waiting ranks keep processors that other ranks need",
                      "mpirun --mca mpi_yield_when_idle 1");
  } else if (ranks.size() > 1 && !all_equal && sum > together.size()) {
    section.problem(join_text("ranks on ", host, " are bound to sets of processors that overlap"),
                    "mpirun --map-by slot:PE=THREADS --bind-to core gives each rank cores of its own");
  } else if (ranks.size() > 1 && all_equal) {
    section.note(
        amounts + " of " + host + ", not bound: threads wander, and their memory stays behind",
        "mpirun --map-by slot:PE=THREADS --bind-to core; `conclave validate` writes the line for a recipe");
  } else {
    section.ok(amounts + " of " + host);
  }
}

}  // namespace

std::string RankPlace::text() const {
  return join_text(host, "\n", processor_list_text(processors), "\n", threads);
}

RankPlace RankPlace::parse(const std::string& text) {
  RankPlace place;
  std::istringstream lines(text);
  std::string processors;
  std::getline(lines, place.host);
  std::getline(lines, processors);
  lines >> place.threads;
  place.processors = parse_processor_list(processors);
  return place;
}

Section examine_ranks(const std::vector<RankPlace>& places, const MachineFacts& facts, bool yields) {
  Section section{"Ranks"};
  std::map<std::string, std::vector<const RankPlace*>> hosts;
  for (std::size_t rank = 0; rank < places.size(); ++rank) {
    const RankPlace& place = places[rank];
    // The first rank's machine stands for all: machines of one job are of one kind.
    section.ok(join_text("rank ", rank, " on ", place.host, ": processors ",
                         processor_list_text(place.processors), " of ", nodes_text(place.processors, facts),
                         ", ", counted(place.threads, "thread")));
    hosts[place.host].push_back(&place);
  }
  std::set<std::size_t> sizes;
  for (const auto& [host, ranks] : hosts) {
    examine_host(section, host, ranks, yields);
    sizes.insert(ranks.size());
  }
  if (sizes.size() > 1)
    section.note(join_text("hosts have between ", *sizes.begin(), " and ", *sizes.rbegin(), " ranks"),
                 "the fullest one decides how long a step takes; ask for equal numbers");
  return section;
}

}  // namespace conclave
