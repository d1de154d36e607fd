// experts.h5 of a run that goes on, as tools of others read it, where they are installed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iterator>

#include "framework/store/expert_history_writer.h"
#include "tests/framework/store/history_steps.h"
#include "tests/framework/store/scratch_directory.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

TEST(HistoryTools, H5lsListsARunThatGoesOn) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  if (std::system("command -v h5ls >/dev/null") != 0) GTEST_SKIP() << "there is no h5ls";
  ExpertHistoryWriter writer(path, options());
  log_steps(writer, 1, 8, 0);
  const std::string listed = (scratch.path() / "listed").string();
  ASSERT_EQ(std::system(("h5ls -r " + path.string() + " > " + listed).c_str()), 0);
  std::ifstream file(listed);
  expect_words({std::istreambuf_iterator<char>(file), {}}, {"/counts                  Dataset {8, 2, 3}",
                                                            "/evaluation/counts       Dataset {1, 2, 2, 3}"});
}

TEST(HistoryTools, H5pyReadsARunThatGoesOn) {
  const ScratchDirectory scratch;
  const fs::path path = scratch.path() / "experts.h5";
  if (std::system("python3 -c 'import h5py' 2>/dev/null") != 0) GTEST_SKIP() << "there is no python3-h5py";
  ExpertHistoryWriter writer(path, options());
  log_steps(writer, 1, 50, 0);  // and the run goes on
  const std::string program =
      "import h5py, sys\n"
      "with h5py.File(sys.argv[1]) as file:\n"
      "    steps, counts = file['step'][:], file['counts'][:]\n"
      "    assert list(steps) == list(range(1, 49)), steps\n"
      "    assert counts.shape == (48, 2, 3) and (counts[:, 0, 0] == 10 * steps).all(), counts\n"
      "    assert file['evaluation/counts'][:].shape == (9, 2, 2, 3)\n"
      "    assert file.attrs['domains'] == 'english\\npython'\n";
  std::ofstream(scratch.path() / "read.py") << program;
  const std::string command =
      "cd / && python3 " + (scratch.path() / "read.py").string() + " " + path.string();
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace conclave
