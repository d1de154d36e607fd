#!/usr/bin/env bash
# Holds every file of code to .clang-format and every text to codespell. Exit code 77: a program is not installed, or
# clang-format is another version than Debian 12's, which formats some lines otherwise.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=14
if ! command -v clang-format >/dev/null || ! command -v codespell >/dev/null; then
  echo "format: skipped, clang-format or codespell is not installed."
  exit 77
fi
if ! clang-format --version | grep -q "version $version\."; then
  echo "format: skipped, this is $(clang-format --version), and the code is formatted by version $version."
  exit 77
fi
folders=(framework layers parallel optim launch examples tests)
code=0
find "${folders[@]}" -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | sort |
  xargs clang-format --dry-run -Werror || code=1
if [ "$code" -ne 0 ]; then
  echo "format: the lines above are not as .clang-format has them; clang-format -i FILE... mends them." >&2
fi
codespell "${folders[@]}" docs cmake ./*.md CMakeLists.txt || code=1
exit "$code"
