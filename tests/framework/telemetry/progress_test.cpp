// The progress line: its text, and how often it is shown on a terminal and elsewhere.
#include "framework/telemetry/progress.h"

#include <fcntl.h>
#include <unistd.h>

#include <cmath>
#include <limits>

#include "tests/framework/telemetry/temporary.h"

namespace conclave {
namespace {

TEST(ProgressText, SaysEverythingThatIsKnown) {
  const ProgressState state{.step = 30,
                            .loss = 2.34561,
                            .tokens_per_second = 12345,
                            .matrix_rate_fraction = 0.456,
                            .load_imbalance = 0.314,
                            .step_seconds = 0.3};
  EXPECT_EQ(progress_text(state, 300, 83),
            "step  30/300  loss 2.3456  12.3 k tokens/s  46% of matrix rate  imbalance 0.31  1:23 left");
  EXPECT_EQ(progress_text({.step = 5, .loss = 1}, 5, 0), "step 5/5  loss 1.0000");
  EXPECT_EQ(progress_text({.step = 5}, 5, 0), "step 5/5  loss NaN");
  const double minus = std::copysign(std::numeric_limits<double>::quiet_NaN(), -1.0);
  EXPECT_EQ(progress_text({.step = 5, .loss = minus}, 5, 0), "step 5/5  loss NaN");
  EXPECT_EQ(progress_text({.step = 5, .loss = -INFINITY}, 5, 0), "step 5/5  loss -infinity");
}

TEST(DurationText, ReadsLikeAClock) {
  EXPECT_EQ(duration_text(0.4), "0:00");
  EXPECT_EQ(duration_text(83.2), "1:23");
  EXPECT_EQ(duration_text(4000), "1:06:40");
  EXPECT_EQ(duration_text(100000), "1 d 3 h");
  EXPECT_EQ(duration_text(1e300), "?");
}

std::string shown(TerminalStyle style, int rank, const TemporaryDirectory& directory) {
  const std::string path = directory.file("terminal");
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  {
    Logger logger({.rank = rank, .terminal = descriptor, .style = style});
    logger.open_file(directory.file("log.txt"));
    Progress progress(logger, 200);
    for (std::int64_t step = 1; step <= 200; ++step)
      progress.update({.step = step, .loss = 1.0, .step_seconds = 0.5});
  }
  close(descriptor);
  return read_text(path);
}

TEST(Progress, ShowsSomeFiftyPlainLinesWhereThereIsNoTerminal) {
  const TemporaryDirectory directory;
  const std::string text = shown(TerminalStyle::plain, 0, directory);
  EXPECT_EQ(count_of(text, "\n"), 51u) << text;
  EXPECT_EQ(count_of(text, "step   1/200  loss 1.0000  1:40 left\n"), 1u) << text;
  EXPECT_EQ(count_of(text, "step 200/200  loss 1.0000\n"), 1u) << text;
  EXPECT_EQ(count_of(text, "\r"), 0u);
  EXPECT_EQ(count_of(read_text(directory.file("log.txt")), "loss"), 51u);
}

TEST(Progress, RewritesOneLineOnATerminal) {
  const TemporaryDirectory directory;
  const std::string text = shown(TerminalStyle::rewriting, 0, directory);
  EXPECT_EQ(count_of(text, "\n"), 1u) << text;
  EXPECT_EQ(count_of(text, "\rstep 200/200"), 1u) << "100 columns, too few for a bar" << text;
  EXPECT_EQ(count_of(read_text(directory.file("log.txt")), "loss"), 51u);
}

TEST(Progress, HasABarWhereThereIsRoom) {
  EXPECT_EQ(bar_text(0, 100, 40, 80), "[>                       ] ");
  EXPECT_EQ(bar_text(50, 100, 40, 80), "[============>           ] ");
  EXPECT_EQ(bar_text(100, 100, 40, 80), "[========================] ");
  EXPECT_EQ(bar_text(50, 100, 60, 76), "[======>     ] ")
      << "15 columns beside a text of 60, and one to spare";
  EXPECT_EQ(bar_text(50, 100, 70, 80), "");
}

TEST(Progress, IsRankZerosAlone) {
  const TemporaryDirectory directory;
  EXPECT_EQ(shown(TerminalStyle::plain, 1, directory), "");
}

}  // namespace
}  // namespace conclave
