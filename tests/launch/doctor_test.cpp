// The facts that `conclave doctor` and `conclave validate` read from a machine, held against machines written
// down here: two sockets with hyper-threads, containers with both versions of control groups; and what they
// conclude from it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "launch/plan/model_costs.h"
#include "launch/plan/plan.h"
#include "launch/tools/doctor/placement.h"
#include "launch/tools/doctor/probes.h"
#include "launch/train/model_size.h"
#include "launch/train/recipe_text.h"

namespace conclave {
namespace {

/// A folder in place of the root directory.
class WrittenMachine : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "conclave-machine-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const std::string& file, const std::string& text) const {
    std::filesystem::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  /// Eight processors, two to a core, in two NUMA nodes of two cores.
  void write_two_sockets() const {
    write("sys/devices/system/cpu/online", "0-7\n");
    for (int i = 0; i < 8; ++i)
      write("sys/devices/system/cpu/cpu" + std::to_string(i) + "/topology/thread_siblings_list",
            std::to_string(i % 4) + "," + std::to_string(i % 4 + 4) + "\n");
    write("sys/devices/system/node/online", "0-1\n");
    write("sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
    write("sys/devices/system/node/node1/cpulist", "2-3,6-7\n");
    write("proc/cpuinfo", "processor\t: 0\nmodel name\t: Abacus 3000\n");
    write("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n");
  }
  std::filesystem::path root_;
};

MachineFacts machine(int nodes, int cores_each) {
  MachineFacts facts;
  for (int node = 0; node < nodes; ++node) {
    facts.nodes.push_back({node, {}});
    for (int core = 0; core < cores_each; ++core) {
      facts.nodes.back().processors.push_back(node * cores_each + core);
      facts.processors.push_back(node * cores_each + core);
    }
  }
  facts.cores = nodes * cores_each;
  return facts;
}

std::string text_of(const Section& section) {
  return report_text({section}, false);
}

TEST(ProcessorList, ReadsAndWritesTheKernelsWay) {
  EXPECT_EQ(parse_processor_list("0-2,8\n"), (std::vector<int>{0, 1, 2, 8}));
  EXPECT_EQ(parse_processor_list(""), std::vector<int>{});
  EXPECT_EQ(parse_processor_list("x,3"), std::vector<int>{3});
  EXPECT_EQ(processor_list_text({0, 1, 2, 8, 10, 11}), "0-2,8,10-11");
  EXPECT_LE(parse_processor_list("0-2000000000").size(), 1u << 16);
}

TEST_F(WrittenMachine, OfTwoSockets) {
  write_two_sockets();
  write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  write("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
  const MachineFacts facts = read_machine(root_);
  EXPECT_EQ(facts.processors.size(), 8u);
  EXPECT_EQ(facts.cores, 4);
  ASSERT_EQ(facts.nodes.size(), 2u);
  EXPECT_EQ(facts.nodes[1].processors, (std::vector<int>{2, 3, 6, 7}));
  EXPECT_EQ(facts.processor_name, "Abacus 3000");
  EXPECT_EQ(facts.memory, std::int64_t{16} << 30);
  EXPECT_EQ(facts.available, std::int64_t{8} << 30);
  EXPECT_EQ(facts.quota, 0);
  EXPECT_EQ(facts.huge_pages, "madvise");
  const std::string text = text_of(examine_processors(facts));
  EXPECT_NE(text.find("8 processors (Abacus 3000) of 4 cores in 2 NUMA nodes"), std::string::npos) << text;
  EXPECT_NE(text.find("note     the clock's governor is powersave"), std::string::npos) << text;
}

TEST_F(WrittenMachine, InAContainerOfControlGroupsTwo) {
  write_two_sockets();
  write("proc/self/cgroup", "0::/jobs/one\n");
  write("sys/fs/cgroup/jobs/one/cpu.max", "max 100000\n");
  write("sys/fs/cgroup/jobs/cpu.max", "250000 100000\n");  // the limit of the group above counts, too
  write("sys/fs/cgroup/jobs/one/memory.max", "4294967296\n");
  write("sys/fs/cgroup/jobs/memory.max", "max\n");
  const MachineFacts facts = read_machine(root_);
  EXPECT_EQ(facts.quota, 2.5);
  EXPECT_EQ(facts.usable_cores(), 2);
  EXPECT_EQ(facts.memory_limit, std::int64_t{4} << 30);
  const std::string text =
      text_of(examine_processors(facts)) + text_of(examine_memory(facts, std::int64_t{64} << 20));
  EXPECT_NE(text.find("note     this container or job gets the time of 2.5 processors"), std::string::npos)
      << text;
  EXPECT_NE(text.find("note     this container or job is ended when it takes more than 4.0 GiB"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("PROBLEM  only 0.1 GiB are free in /dev/shm"), std::string::npos) << text;
}

TEST_F(WrittenMachine, InAContainerOfControlGroupsOne) {
  write_two_sockets();
  // The container's own group is mounted as the root: the path in the list is not there.
  write("proc/self/cgroup", "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n3:cpuset:/\n1:name=systemd:/x\n");
  write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n");
  write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  MachineFacts facts = read_machine(root_);
  EXPECT_EQ(facts.quota, 1.5);
  EXPECT_EQ(facts.memory_limit, 0);
  write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(read_machine(root_).quota, 0);
}

TEST_F(WrittenMachine, ThatSaysNothing) {
  const MachineFacts facts = read_machine(root_);
  EXPECT_EQ(facts.memory, 0);
  EXPECT_EQ(facts.nodes.size(), 1u);
  EXPECT_EQ(facts.usable_cores(), 1);
}

TEST_F(WrittenMachine, FileSystemsAreTriedOutAndLeftAsTheyWere) {
  const Section here = examine_file_system(root_);
  EXPECT_EQ(count({here}, Verdict::problem), 0) << text_of(here);
  EXPECT_GE(here.findings.size(), 6u) << text_of(here);
  EXPECT_TRUE(std::filesystem::is_empty(root_));
  const Section nowhere = examine_file_system("/proc");
  EXPECT_GE(count({nowhere}, Verdict::problem), 1) << text_of(nowhere);
}

TEST(Ranks, PlacesTravelAsText) {
  const RankPlace place = RankPlace::parse(RankPlace{"node7", {0, 1, 4}, 3}.text());
  EXPECT_EQ(place.host, "node7");
  EXPECT_EQ(place.processors, (std::vector<int>{0, 1, 4}));
  EXPECT_EQ(place.threads, 3);
}

TEST(Ranks, InEachOthersWayAreNamed) {
  const MachineFacts facts = machine(2, 2);
  const auto verdicts = [&](const std::vector<RankPlace>& places, bool yields = false) {
    const Section section = examine_ranks(places, facts, yields);
    return std::pair(count({section}, Verdict::note), count({section}, Verdict::problem));
  };
  using Counts = std::pair<int, int>;
  EXPECT_EQ(verdicts({{"a", {0, 1}, 2}, {"a", {2, 3}, 2}}), Counts(0, 0));
  EXPECT_EQ(verdicts({{"a", {0, 1, 2, 3}, 2}, {"a", {0, 1, 2, 3}, 2}}), Counts(1, 0)) << "not bound";
  EXPECT_EQ(verdicts({{"a", {0, 1, 2}, 1}, {"a", {2, 3}, 1}}), Counts(0, 1)) << "overlapping";
  EXPECT_EQ(verdicts({{"a", {0}, 2}, {"a", {1, 2, 3}, 2}}), Counts(0, 1)) << "two threads on one processor";
  EXPECT_EQ(verdicts({{"a", {0, 1}, 2}, {"a", {0, 1}, 2}}), Counts(1, 1)) << "more threads than processors";
  EXPECT_EQ(verdicts({{"a", {0, 1}, 2}, {"a", {0, 1}, 2}}, true), Counts(1, 0)) << "the same, and they yield";
  EXPECT_EQ(verdicts({{"a", {0}, 1}, {"a", {1}, 1}, {"b", {0}, 1}}), Counts(1, 0))
      << "hosts of unequal numbers";
  const std::string text = text_of(examine_ranks({{"a", {2, 3}, 2}}, facts, false));
  EXPECT_NE(text.find("rank 0 on a: processors 2-3 of NUMA node 1, 2 threads"), std::string::npos) << text;
}

TEST(Placement, GivesEachRankCoresNearItsMemory) {
  const MachineFacts facts = machine(2, 8);
  EXPECT_EQ(mpirun_text(place_ranks(facts, 8)),
            "mpirun -n 8 --map-by ppr:4:numa:PE=2 --bind-to core -x OMP_NUM_THREADS=2");
  EXPECT_EQ(
      srun_text(place_ranks(facts, 8)),
      "srun --mpi=pmix --ntasks-per-node=8 --cpus-per-task=2 --cpu-bind=cores --distribution=block:block");
  EXPECT_TRUE(placement_advice(facts, place_ranks(facts, 8), 4).empty());
  EXPECT_EQ(placement_advice(facts, place_ranks(facts, 4), 4).size(), 1u) << "tensor ranks across NUMA nodes";
  const RankPlacement three = place_ranks(facts, 3);
  EXPECT_EQ(mpirun_text(three), "mpirun -n 3 --map-by slot:PE=5 --bind-to core -x OMP_NUM_THREADS=5");
  EXPECT_EQ(placement_advice(facts, three, 1).size(), 2u) << "an idle core, and no even share of nodes";
  EXPECT_EQ(placement_advice(facts, place_ranks(facts, 1), 1).size(), 1u) << "one rank spans both nodes";
  EXPECT_NE(
      mpirun_text(place_ranks(facts, 17)).find("--oversubscribe --bind-to none --mca mpi_yield_when_idle 1"),
      std::string::npos);
  EXPECT_TRUE(place_ranks(facts, 8, 4).shares_cores) << "threads that the recipe asks for";
  MachineFacts container = facts;
  container.quota = 4;
  EXPECT_EQ(place_ranks(container, 2).threads, 2);
}

constexpr const char* recipe_text = R"(name: small
model: {vocab_size: 264, hidden_size: 32, num_hidden_layers: 3, num_attention_heads: 2, num_key_value_heads: 1,
        head_dim: 16, intermediate_size: 48,
        moe: {num_experts: 4, num_experts_per_tok: 2, moe_intermediate_size: 32, num_shared_experts: 1,
              first_k_dense_replace: 1}}
data: {sequence_length: 32, train: [{path: text, domain: text}]}
parallel: {expert: 2}
training: {global_batch_size: 8, micro_batch_size: 2, steps: 10}
)";

TEST(ModelCosts, AddUpToThePlan) {
  for (const bool tied : {false, true}) {
    Recipe recipe = parse_recipe(recipe_text, "here");
    recipe.model.tie_word_embeddings = tied;
    const std::vector<CostRow> rows = model_costs(recipe, 4);
    const CostRow& sum = rows.back();
    EXPECT_EQ(sum.total, count_parameters(recipe.model).total());
    EXPECT_EQ(sum.active, count_active_parameters(recipe.model).total());
    EXPECT_DOUBLE_EQ(sum.flops, training_flops_per_token(recipe.model, recipe.data.sequence_length));
    const MemoryPlan memory = plan_memory(recipe, 4);
    const double planned = memory.parameters + memory.gradients + memory.moments;
    EXPECT_NEAR(sum.bytes, planned, 0.05 * planned) << "the plan has gaps between parameters besides";
  }
}

}  // namespace
}  // namespace conclave
