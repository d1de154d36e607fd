// A hint's words come back from a shell as they were.
#include "framework/base/shell_word.h"

#include <gtest/gtest.h>

#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {

TEST(ShellWord, ComesBackFromAShellAsItWas) {
  EXPECT_EQ(shell_word("runs/quickstart"), "runs/quickstart");
  EXPECT_EQ(shell_word("a folder/run"), "'a folder/run'");
  for (const std::string text : {"", "a b", "it's", "$HOME", "a;b", "`ls`", "\"", "*", "~", "a\\b"})
    EXPECT_EQ(run("printf %s " + shell_word(text)).output, text);
}

}  // namespace
}  // namespace conclave
