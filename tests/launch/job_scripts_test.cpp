// launch/slurm.sbatch and launch/pbs.sh without a cluster: programs of the test's own stand where those of
// Slurm, PBS and MPI would, so that what each exit code and signal leads to is seen. tests/cluster/slurm.sh
// has a real Slurm.
#include <fstream>

#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {

class JobScripts : public Command {
 protected:
  static void SetUpTestSuite() {
    Command::SetUpTestSuite();
    std::filesystem::create_directory(folder_ / "bin");
    write_program("bin/scontrol",
                  std::string("if [ $1 = requeue ]; then echo \"REQUEUED $2\"; else echo \"   Command=") +
                      CONCLAVE_LAUNCH_FOLDER + "/slurm.sbatch recipe.yaml\"; fi");
    write_program("bin/qrerun", "echo \"REQUEUED $1\"");
    // Both launchers run one process in place of all ranks.
    const std::string launcher =
        "if [ \"$1\" = --mpi=list ]; then echo pmix; exit; fi\n"
        "echo \"LAUNCHED $*\"\n"
        "while [ \"$1\" != \"$CONCLAVE\" ]; do shift; done\nexec \"$@\"";
    write_program("bin/srun", launcher);
    write_program("bin/mpirun", launcher);
    std::ofstream(folder_ / "nodes") << "node1\nnode2\n";
    // As `conclave`, but that TRAINING says how training goes.
    write_program("conclave", std::string("if [ \"$1\" = train ]; then eval \"$TRAINING\"; exit; fi\nexec ") +
                                  CONCLAVE_COMMAND + " \"$@\"");
  }
  static void write_program(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << "#!/bin/bash\n" << text << "\n";
    std::filesystem::permissions(folder_ / name, std::filesystem::perms::owner_all);
  }
  /// `after`: shell text that runs beside the script, whose process is $job.
  static Outcome submit(const std::string& script, const std::string& output, const std::string& training,
                        const std::string& environment = "", const std::string& after = "") {
    const std::string arguments = path("recipe.yaml") + " output=" + path(output);
    std::string command = "unset OMP_NUM_THREADS; export PATH=" + path("bin") +
                          ":$PATH CONCLAVE=" + path("conclave") + " TRAINING='" + training + "' ";
    if (script == "slurm.sbatch")
      command += "SLURM_JOB_ID=7 SLURM_NTASKS=2 SLURM_CPUS_PER_TASK=3 " + environment + "; timeout 60 bash " +
                 CONCLAVE_LAUNCH_FOLDER + "/slurm.sbatch " + arguments;
    else
      command += "PBS_JOBID=7 PBS_NODEFILE=" + path("nodes") + " PBS_O_WORKDIR=" + folder_.string() +
                 " OMP_NUM_THREADS=3 ARGUMENTS='" + arguments + "' " + environment + "; bash " +
                 CONCLAVE_LAUNCH_FOLDER + "/pbs.sh";
    return run(after.empty() ? command : command + " & job=$!; " + after + "; wait $job");
  }
  static bool requeued(const Outcome& outcome) {
    return outcome.output.find("REQUEUED 7") != std::string::npos;
  }
};

class OfEach : public JobScripts, public testing::WithParamInterface<const char*> {};

TEST_P(OfEach, SaysWhatEachExitCodeLeadsTo) {
  for (const int code : {0, 2, 3, 4}) {
    const Outcome outcome = submit(GetParam(), "ends", "exit " + std::to_string(code));
    EXPECT_EQ(outcome.exit_code, code) << outcome.output;
    EXPECT_FALSE(requeued(outcome)) << outcome.output;
    EXPECT_EQ(occurrences(outcome.output, code == 0 ? ": done" : "not requeued: "), 1u) << outcome.output;
  }
  for (int time = 0; time < 3; ++time) {
    const Outcome stopped = submit(GetParam(), "stops", "exit 75");
    EXPECT_TRUE(requeued(stopped)) << stopped.output;
  }
}

TEST_P(OfEach, AFailureIsTriedAgainWhileThereIsProgress) {
  const std::string fails = "exit 5", saves = "mkdir -p " + path("fails") +
                                              "/checkpoints/step-00000010; touch " + path("fails") +
                                              "/checkpoints/step-00000010/manifest.json; exit 137";
  EXPECT_TRUE(requeued(submit(GetParam(), "fails", fails)));
  EXPECT_TRUE(requeued(submit(GetParam(), "fails", saves)));
  const Outcome again = submit(GetParam(), "fails", fails);
  EXPECT_FALSE(requeued(again)) << again.output;
  EXPECT_EQ(again.exit_code, 5) << again.output;
  EXPECT_NE(again.output.find("no progress since the failure before, step-00000010 is the newest"),
            std::string::npos)
      << again.output;
  std::filesystem::remove_all(folder_ / "fails");
}

TEST_P(OfEach, StartsAreLimited) {
  EXPECT_TRUE(requeued(submit(GetParam(), "often", "exit 75", "MAX_RESTARTS=1")));
  const Outcome last = submit(GetParam(), "often", "exit 75", "MAX_RESTARTS=1 SLURM_RESTART_COUNT=1");
  EXPECT_FALSE(requeued(last)) << last.output;
  EXPECT_EQ(last.exit_code, 75) << last.output;
  std::filesystem::remove_all(folder_ / "often");
}

TEST_P(OfEach, AWrongRecipeIsNotStarted) {
  const Outcome wrong = submit(GetParam(), "wrong model.moe.num_expert=3", "echo never");
  EXPECT_EQ(wrong.exit_code, 2) << wrong.output;
  EXPECT_EQ(occurrences(wrong.output, "num_expert:"), 1u) << wrong.output;
  EXPECT_EQ(wrong.output.find("LAUNCHED"), std::string::npos) << wrong.output;
}

TEST_P(OfEach, SignalsReachTheRanksAsUsr1) {
  const std::string ready = path("ready");
  const std::string training = "trap \"echo RANK GOT USR1; exit 75\" USR1; touch " + ready +
                               "; for i in $(seq 300); do sleep 0.1; done";
  const auto signalled = [&](const char* signal) {
    std::filesystem::remove(ready);
    return submit(GetParam(), "asked", training, "",
                  "until [ -e " + ready + " ]; do sleep 0.05; done; kill -" + signal +
                      " $(pgrep -P $job -f " + GetParam() + " || echo $job)");
  };
  const Outcome asked = signalled("USR1");
  EXPECT_EQ(occurrences(asked.output, "RANK GOT USR1"), 1u) << asked.output;
  EXPECT_TRUE(requeued(asked)) << asked.output;
}

INSTANTIATE_TEST_SUITE_P(Script, OfEach, testing::Values("slurm.sbatch", "pbs.sh"), [](const auto& script) {
  return script.param == std::string("pbs.sh") ? "Pbs" : "Slurm";
});

TEST_F(JobScripts, RanksGetTheirCoresAndThreads) {
  const Outcome slurm = submit("slurm.sbatch", "threads", "echo THREADS $OMP_NUM_THREADS");
  EXPECT_NE(slurm.output.find("LAUNCHED --mpi=pmix --cpus-per-task=3 --cpu-bind=cores"), std::string::npos)
      << slurm.output;
  EXPECT_NE(slurm.output.find("THREADS 3"), std::string::npos) << slurm.output;
  const Outcome by_mpirun = submit("slurm.sbatch", "threads", "exit 0", "LAUNCHER=mpirun");
  EXPECT_NE(by_mpirun.output.find("LAUNCHED -n 2 --map-by slot:PE=3 --bind-to core"), std::string::npos)
      << by_mpirun.output;
  const Outcome pbs = submit("pbs.sh", "threads", "echo THREADS $OMP_NUM_THREADS; echo \"$@\"");
  EXPECT_NE(pbs.output.find("-n 2 --map-by slot:PE=3 --bind-to core"), std::string::npos) << pbs.output;
  EXPECT_NE(pbs.output.find("THREADS 3"), std::string::npos) << pbs.output;
}

TEST_F(JobScripts, ACancelledJobIsNotRequeued) {
  // Slurm sends TERM to script and ranks alike; these save and leave with 75.
  const std::string ready = path("cancelled-ready");
  const Outcome cancelled =
      submit("slurm.sbatch", "cancelled", "touch " + ready + "; sleep 1; exit 75", "",
             "until [ -e " + ready +
                 " ]; do sleep 0.05; done; kill -TERM $(pgrep -P $job -f slurm.sbatch || echo $job)");
  EXPECT_FALSE(requeued(cancelled)) << cancelled.output;
  EXPECT_NE(cancelled.output.find("cancelled, so not requeued"), std::string::npos) << cancelled.output;
}

}  // namespace
}  // namespace conclave
