// The logger, writing to a file in place of a terminal: who is heard, what reaches log.txt, how lines are
// rewritten.
#include "framework/telemetry/logger.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "framework/telemetry/terminal.h"
#include "tests/framework/telemetry/temporary.h"

namespace conclave {
namespace {

/// A file that plays the terminal.
class FakeTerminal {
 public:
  explicit FakeTerminal(const std::string& path)
      : path_(path), descriptor_(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600)) {}
  ~FakeTerminal() { close(descriptor_); }
  int descriptor() const { return descriptor_; }
  std::string text() const { return read_text(path_); }

 private:
  std::string path_;
  int descriptor_;
};

TEST(Logger, LetsRankZeroSpeakAndOthersWarn) {
  const TemporaryDirectory directory;
  const FakeTerminal terminal(directory.file("terminal"));
  Logger zero({.rank = 0, .terminal = terminal.descriptor()}),
      three({.rank = 3, .terminal = terminal.descriptor()});
  zero.open_file(directory.file("log.txt"));
  three.open_file(directory.file("log.txt"));
  zero.info("step ", 1);
  three.info("not heard");
  three.warning("low on ", "memory");
  zero.error("lost");
  for (const std::string& text : {terminal.text(), read_text(directory.file("log.txt"))}) {
    EXPECT_EQ(count_of(text, "s] step 1\n"), 1u) << text;
    EXPECT_EQ(count_of(text, "not heard"), 0u) << text;
    EXPECT_EQ(count_of(text, "s] [rank 3] warning: low on memory\n"), 1u) << text;
    EXPECT_EQ(count_of(text, "s] error: lost\n"), 1u) << text;
    EXPECT_EQ(count_of(text, "\x1b"), 0u) << "a file has no colours";
  }
}

TEST(Logger, WritesToTheFileWhatWasSaidBeforeItWasOpened) {
  const TemporaryDirectory directory;
  const FakeTerminal terminal(directory.file("terminal"));
  {
    Logger logger({.terminal = terminal.descriptor()});
    logger.info("early");
    logger.open_file(directory.file("log.txt"));
    logger.info("late");
  }
  const std::string first = read_text(directory.file("log.txt"));
  EXPECT_EQ(first.rfind("---- ", 0), 0u) << first;
  EXPECT_LT(first.find("early"), first.find("late"));
  Logger again({.terminal = terminal.descriptor()});
  again.open_file(directory.file("log.txt"));
  EXPECT_EQ(read_text(directory.file("log.txt")).rfind(first, 0), 0u) << "a resumed run appends";
}

TEST(Logger, RewritesOneLineAndClearsItForMessages) {
  const TemporaryDirectory directory;
  const FakeTerminal terminal(directory.file("terminal"));
  {
    Logger logger({.terminal = terminal.descriptor(), .style = TerminalStyle::rewriting});
    ASSERT_TRUE(logger.rewrites());
    logger.rewrite_line("one");
    logger.rewrite_line(std::string(500, 'x'));
    logger.info("between");
    logger.rewrite_line("two");
  }
  const std::string text = terminal.text();
  EXPECT_EQ(text.rfind("\rone\x1b[K\r", 0), 0u) << text;
  EXPECT_EQ(count_of(text, "x"), 99u) << "a line is cut to the width of the terminal";
  EXPECT_EQ(count_of(text, "\r\x1b[2K["), 1u) << text;
  EXPECT_EQ(text.substr(text.size() - 7), "two\x1b[K\n") << "the destructor leaves the line standing";
}

TEST(Logger, SaysWhereItCannotWrite) {
  const TemporaryDirectory directory;
  Logger logger;
  try {
    logger.open_file(directory.file("missing/log.txt"));
    FAIL() << "a file in a missing directory was opened";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::request);
  }
}

TEST(Logger, GoesOnWhenTheDiskIsFullAndSaysSoOnce) {
  const TemporaryDirectory directory;
  const FakeTerminal terminal(directory.file("terminal"));
  Logger logger({.terminal = terminal.descriptor()});
  logger.open_file("/dev/full");
  logger.info("one");
  logger.info("two");
  EXPECT_EQ(count_of(terminal.text(), "cannot be written any more"), 1u) << terminal.text();
  EXPECT_EQ(count_of(terminal.text(), "two"), 1u);
}

TEST(Logger, DoesNotWaitForAReaderThatPauses) {
  const TemporaryDirectory directory;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const auto begin = std::chrono::steady_clock::now();
  constexpr int lines = 20'000;
  std::string text;
  std::thread reader;
  {
    Logger logger({.terminal = ends[1]});
    logger.open_file(directory.file("log.txt"));
    for (int line = 0; line < lines; ++line) logger.info("line ", line, " of many");
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20)) << "it has waited";
    reader = std::thread([&] {
      char block[4096];
      for (ssize_t got = 0; (got = read(ends[0], block, sizeof block)) > 0;)
        text.append(block, static_cast<std::size_t>(got));
    });
    // The next line that finds room tells how many found none.
    for (int attempt = 0; attempt < 100; ++attempt) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      logger.info("later");
    }
  }
  close(ends[1]);
  reader.join();
  close(ends[0]);
  EXPECT_EQ(count_of(read_text(directory.file("log.txt")), "of many\n"), static_cast<std::size_t>(lines));
  const std::size_t shown = count_of(text, "of many\n");
  EXPECT_GT(shown, 100u);
  EXPECT_LT(shown, static_cast<std::size_t>(lines));
  ASSERT_EQ(count_of(text, "left out here"), 1u) << text.substr(text.size() - 500);
  EXPECT_NE(text.find("(" + std::to_string(lines - shown) + " lines are left out here"), std::string::npos);
  EXPECT_GT(count_of(text, "later\n"), 0u);
}

TEST(Logger, GivesUpAtTheEndWhatNobodyReads) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const auto begin = std::chrono::steady_clock::now();
  {
    Logger logger({.terminal = ends[1]});
    for (int line = 0; line < 2'000; ++line)
      logger.info("a line that is not read, to fill the pipe and more");
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  char block[4096];
  while (read(ends[0], block, sizeof block) == static_cast<ssize_t>(sizeof block)) {
  }  // the writing thread ends before the pipe does
  close(ends[0]);
}

TEST(Terminal, KnowsAPseudoTerminalFromAFile) {
  const TemporaryDirectory directory;
  const FakeTerminal file(directory.file("file"));
  EXPECT_FALSE(is_terminal(file.descriptor()));
  const int pseudo = posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_GE(pseudo, 0);
  unsetenv("OMPI_COMM_WORLD_RANK");
  EXPECT_TRUE(is_terminal(pseudo));
  setenv("TERM", "xterm", 1);
  unsetenv("NO_COLOR");
  EXPECT_TRUE(wants_color(pseudo));
  setenv("NO_COLOR", "1", 1);
  EXPECT_FALSE(wants_color(pseudo));
  unsetenv("NO_COLOR");
  setenv("TERM", "dumb", 1);
  EXPECT_FALSE(wants_color(pseudo));
  close(pseudo);
}

TEST(Logger, ShowsControlCharactersOfNamesAndActsOnNone) {
  const TemporaryDirectory directory;
  const FakeTerminal terminal(directory.file("terminal"));
  Logger logger({.terminal = terminal.descriptor(), .style = TerminalStyle::plain});
  logger.open_file(directory.file("log.txt"));
  logger.info("the domain \x1b[31mred\x1b]0;title\x07 and\rover");
  logger.write_to_file("Data of \x1b[2J");
  EXPECT_EQ(count_of(terminal.text(), "the domain \\x1b[31mred\\x1b]0;title\\x07 and\\x0dover\n"), 1u);
  EXPECT_EQ(count_of(read_text(directory.file("log.txt")), "\\x1b[31mred"), 1u);
  EXPECT_EQ(count_of(read_text(directory.file("log.txt")), "Data of \\x1b[2J\n"), 1u);
  EXPECT_EQ(count_of(terminal.text() + read_text(directory.file("log.txt")), "\x1b"), 0u);
}

}  // namespace
}  // namespace conclave
