#!/usr/bin/env bash
# package_test.sh SOURCE BUILD MPIRUN VERSION PART: tests of what `cmake --install` leaves, in BUILD/package. The part
# `install` comes first. Exit code 77: this machine lacks what the part needs.
set -euo pipefail
source=$1 build=$2 mpirun=$3 version=$4 part=$5
package=$build/package prefix=$build/package/prefix

fail() {
  echo "package_test.sh $part: $*" >&2
  exit 1
}
expect_file() { for file in "$@"; do [ -e "$prefix/$file" ] || fail "$file was not installed"; done; }
library() { find "$prefix" -name libconclave.so; }
# Whether the words of $1, from a completion, are exactly those of $2.
expect_words() {
  [ "$(tr -s ' \n' '\n\n' <<<"$1" | sed '/^$/d' | sort | tr '\n' ' ')" = "$(tr ' ' '\n' <<<"$2" | sort | tr '\n' ' ')" ] ||
    fail "'$3' became '$(tr '\n' ' ' <<<"$1")', expected '$2'"
}
on_ranks() {
  timeout 60 "$mpirun" --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n "$@"
}

install_all() {
  rm -rf "$package"
  mkdir -p "$package"
  cmake --install "$build" --prefix "$prefix" >"$package/install.log" || fail "cmake --install failed"
  expect_file bin/conclave include/conclave/framework/base/version.h include/conclave/layers/moe/router.h \
    share/man/man1/conclave.1 share/bash-completion/completions/conclave share/zsh/site-functions/_conclave \
    share/conclave/examples/quickstart.yaml
  [ "$("$prefix/bin/conclave" --version)" = "conclave $version" ] || fail "the installed command is of another version"
}

# Before everything is built nothing is installed, and a sentence says what to build.
check_unbuilt() {
  rm -rf "$package/unbuilt" "$package/unbuilt_prefix"
  cmake -S "$source" -B "$package/unbuilt" -DCONCLAVE_TESTS=OFF >"$package/unbuilt.log" 2>&1 || fail "the configuration failed"
  if cmake --install "$package/unbuilt" --prefix "$package/unbuilt_prefix" >"$package/unbuilt.log" 2>&1; then
    fail "an empty build was installed"
  fi
  tr -s ' \n' '  ' <"$package/unbuilt.log" | grep -q "Build everything first: cmake --build" ||
    { cat "$package/unbuilt.log" >&2; fail "no sentence says what to build"; }
  [ ! -e "$package/unbuilt_prefix" ] || fail "something was installed all the same"
}

# Versions of the library and of its symbols; it shows its own names and nothing of the libraries inside.
check_library() {
  local file soname hidden undefined
  file=$(library)
  soname=$(readelf -d "$file" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
  [ "$soname" = "libconclave.so.${version%.*}" ] || fail "the soname is $soname"
  [ "$(readlink "$file")" = "$soname" ] && [ "$(readlink "${file%/*}/$soname")" = "libconclave.so.$version" ] ||
    fail "libconclave.so, $soname and libconclave.so.$version are not links in a row"
  nm -DC --defined-only "$file" >"$package/symbols"
  [ "$(grep -c 'conclave::' "$package/symbols")" -gt 500 ] || fail "fewer than 500 names of conclave are shown"
  hidden=$(grep -v -E "conclave::|CONCLAVE_${version%.*}$" "$package/symbols" || true)
  [ -z "$hidden" ] || fail "names that are not Conclave's are shown: $(head -n 3 <<<"$hidden")"
  ldd "$file" | grep 'not found' && fail "a library that libconclave needs is not found"
  undefined=$(ldd -r "$file" 2>&1 | grep 'undefined symbol' | head -n 3 || true)
  [ -z "$undefined" ] || fail "$undefined"
}

# What a header includes is installed too, or is the standard library's or MPI's; the part `programs` compiles them.
check_headers() {
  cd "$prefix/include/conclave"
  local header included missing=0
  while IFS=: read -r header included; do
    [ -e "$included" ] || { echo "$header includes \"$included\", which is not installed"; missing=1; }
  done < <(grep -rhoH '^ *# *include "[^"]*"' . | sed 's/#.*"\(.*\)"/\1/; s/: */:/')
  grep -rn -E '# *include <(nlohmann|hdf5|dnnl|oneapi|yaml|sentencepiece|google|png|isa-l|cuda|nccl)' . && missing=1
  [ "$missing" -eq 0 ] || fail "installed headers need what is not there"
}

# The programs of examples/library and manners.cpp, in a folder of their own, by find_package alone.
check_programs() {
  local project=$package/project python candidate
  mkdir -p "$project"
  cp "$source"/examples/library/* "$source/tests/package/manners.cpp" "$project/"
  (cd "$prefix/include/conclave" && find . -name '*.h' | sort | sed 's/^\.\/\(.*\)/#include "\1"/'; echo 'int main() {}') >"$project/headers.cpp"
  sed -i 's/own_ranks)/own_ranks manners headers)/' "$project/CMakeLists.txt"
  if grep -rn "$source/" "$prefix/lib"*/cmake "$prefix/include"; then fail "the package names the source folder"; fi
  cmake -S "$project" -B "$project/build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_CXX_FLAGS='-Wall -Wextra -Werror -Wno-missing-field-initializers' \
    $(command -v ccache >/dev/null && echo -DCMAKE_CXX_COMPILER_LAUNCHER=ccache) >"$project/log" 2>&1 ||
    { tail -n 20 "$project/log" >&2; fail "find_package(Conclave) or the configuration failed"; }
  cmake --build "$project/build" -j 2 >"$project/log" 2>&1 || { grep -A 5 error "$project/log" | head -n 30 >&2; fail "the programs do not compile"; }
  cd "$project/build"
  rm -rf checkpoints log manners_log*
  timeout 60 ./train checkpoints || fail "train failed"
  timeout 60 ./balance_term || fail "balance_term failed"
  timeout 60 ./layer || fail "layer failed"
  on_ranks 3 ./own_ranks log || fail "own_ranks failed"
  grep -q 'step 80  loss' log || fail "own_ranks has not written its log"
  on_ranks 2 ./manners manners_log || fail "the library disturbs its caller"
  [ "$(grep -c 'loss ' manners_log)" -eq 3 ] || fail "the logger has not written what it was told"
  "$prefix/bin/conclave" inspect checkpoints >/dev/null || fail "the checkpoint of train is not whole"
  for program in "$source"/examples/library/*.{cpp,py} "$source"/examples/*/main.cpp; do
    [ "$(wc -l <"$program")" -lt 100 ] || fail "$program is not under 100 lines"
  done
  for candidate in "${CONCLAVE_PYTHON:-python3}" /usr/bin/python3; do
    if "$candidate" -c 'import h5py' 2>/dev/null; then python=$candidate; break; fi
  done
  if [ -z "${python:-}" ]; then
    echo "package_test.sh: read_checkpoint.py was not run, no python3 with h5py is installed (python3-h5py)"
  else
    "$python" "$project/read_checkpoint.py" checkpoints/step-00000060 >read_log || fail "read_checkpoint.py failed"
    grep -q '^step 60, tokens 30720$' read_log && grep -q '^model.embed_tokens.weight \[64, 64\] norm' read_log ||
      { head -n 5 read_log >&2; fail "read_checkpoint.py prints something else"; }
    [ "$(grep -c 'cosine between experts' read_log)" -eq 2 ] || fail "read_checkpoint.py has not found two routers"
  fi
}

# A project without the language C finds the package too; another minor version is refused.
check_find_package() {
  local folder=$package/find
  mkdir -p "$folder"
  printf '%s\n' 'cmake_minimum_required(VERSION 3.22)' 'project(Find LANGUAGES CXX)' 'find_package(Conclave ${wanted} REQUIRED)' \
    'add_executable(find main.cpp)' 'target_link_libraries(find Conclave::Conclave)' >"$folder/CMakeLists.txt"
  printf '%s\n' '#include "parallel/mpi.h"' 'int main() { return conclave::launched_under_mpi(); }' >"$folder/main.cpp"
  find_it() { cmake -S "$folder" -B "$folder/build" -DCMAKE_PREFIX_PATH="$prefix" -Dwanted="$1" >"$folder/log" 2>&1; }
  local minor=${version#*.}
  minor=${minor%%.*}
  find_it "${version%%.*}.$((minor + 1))" && fail "the next minor version was found"
  find_it "$((${version%%.*} + 1))" && fail "the next major version was found"
  find_it "${version%.*}" || { tail -n 10 "$folder/log" >&2; fail "a project without the language C does not find it"; }
  cmake --build "$folder/build" >"$folder/log" 2>&1 || { tail -n 10 "$folder/log" >&2; fail "such a project does not link"; }
  "$folder/build/find" || fail "such a program does not run"
}

# Every option that the command knows is in the manual page, which the formatters take without a word.
check_manual_page() {
  local page=$prefix/share/man/man1/conclave.1 command option
  command -v groff >/dev/null || { echo "groff is not installed"; exit 77; }
  groff -man -Tascii -ww -P-cbou "$page" >"$package/manual.txt" 2>"$package/manual.log" || fail "groff failed"
  [ ! -s "$package/manual.log" ] || fail "groff complains: $(head -n 3 "$package/manual.log")"
  for command in $("$prefix/bin/conclave" --complete '' | grep -v -e '^-' -e '^help$'); do
    grep -q "conclave $command" "$package/manual.txt" || fail "the command $command is missing"
    for option in $("$prefix/bin/conclave" --complete "$command" --); do
      grep -q -e "$option" "$package/manual.txt" || fail "$option of $command is missing"
    done
  done
  tr -s ' \n' '  ' <"$package/manual.txt" | grep -q 'stopped on request after saving' || fail "the exit codes are missing"
}

# What bash makes of a line, with the words that it would show or insert.
complete_in_bash() {
  bash --norc -c '
    source "$1/share/bash-completion/completions/conclave"
    cd "$3"
    COMP_LINE=$2 COMP_POINT=${#2} COMPREPLY=()
    _conclave conclave
    printf "%s\n" "${COMPREPLY[@]}"' - "$prefix" "$1" "$package"
}
check_completion_bash() {
  export PATH=$prefix/bin:$PATH
  expect_words "$(complete_in_bash 'conclave va')" validate 'conclave va'
  expect_words "$(complete_in_bash 'conclave generate --t')" '--tokens --temperature --top-k --tokenizer' 'conclave generate --t'
  expect_words "$(complete_in_bash 'conclave train r.yaml model.m')" model.moe. 'model.m'
  expect_words "$(complete_in_bash 'conclave train r.yaml training.se')" 'training.seed=' 'training.se'
  # Bash has split at =, so only what follows it comes.
  expect_words "$(complete_in_bash 'conclave train r.yaml training.precision=')" 'fp32 bf16 fp64' 'training.precision='
  expect_words "$(complete_in_bash 'conclave train r.yaml parallel.sequence=t')" true 'parallel.sequence=t'
  expect_words "$(complete_in_bash 'conclave train r.yaml model.moe.balance.1.scope=gl')" global_batch 'scope=gl'
  touch "$package/a_recipe.yaml"
  expect_words "$(complete_in_bash 'conclave train a_rec')" a_recipe.yaml 'a_rec'
  expect_words "$(complete_in_bash 'conclave validate --machine a_rec')" a_recipe.yaml '--machine a_rec'
}

check_completion_zsh() {
  command -v zsh >/dev/null || { echo "zsh is not installed"; exit 77; }
  export PATH=$prefix/bin:$PATH
  local line
  complete_in_zsh() { # the words of the line; zsh's own functions are stand-ins that print
    zsh -f -c '
      compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -l -- "$@" }
      _files() { print files }
      words=("${@[2,-1]}") CURRENT=$(($# - 1))
      source "$1"' - "$prefix/share/zsh/site-functions/_conclave" "$@"
  }
  expect_words "$(complete_in_zsh conclave va)" validate 'conclave va'
  expect_words "$(complete_in_zsh conclave train r.yaml model.m)" model.moe. model.m
  expect_words "$(complete_in_zsh conclave train r.yaml training.precision=b)" training.precision=bf16 precision=b
  expect_words "$(complete_in_zsh conclave train r)" files 'train r'
}

case $part in
  install) install_all ;;
  unbuilt) check_unbuilt ;;
  library) check_library ;;
  headers) check_headers ;;
  programs) check_programs ;;
  find_package) check_find_package ;;
  manual_page) check_manual_page ;;
  completion_bash) check_completion_bash ;;
  completion_zsh) check_completion_zsh ;;
  *) fail "there is no such part" ;;
esac
