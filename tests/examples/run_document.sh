#!/usr/bin/env bash
# run_document.sh SOURCE BUILD DOCUMENT PATH: runs every command of the document's blocks that begin with ```sh path=PATH,
# in order, as a reader would type them. The folder they run in is scratch with links to what the repository has, so that
# data/ and runs/ of the reader stay as they are. Commands that begin with cmake run in the repository itself, where they
# find everything built; where BUILD is not build/release they are named as left out. Fails with the first command that
# does, and when there is none to run.
set -uo pipefail
source=$(cd "$1" && pwd) build=$2 document=$3 path=$4

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for entry in "$source"/*; do
  case ${entry##*/} in build | data | runs) ;; *) ln -s "$entry" "$scratch/" ;; esac
done
mkdir -p "$scratch/build"
ln -s "$build" "$scratch/build/release"
cd "$scratch" || exit 1

# As root, and with fewer cores than ranks, mpirun wants to be asked; a reader's machine may not.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1

# The commands: lines of the blocks, joined where one ends with a backslash.
commands=$(awk -v opening="^\`\`\`sh path=$path\$" '
  $0 ~ opening { inside = 1; next }
  /^```/ { inside = 0 }
  inside && NF && !/^#/ { if (sub(/\\$/, "")) { line = line $0; next } print line $0; line = "" }' "$source/$document")
total=$(grep -c . <<<"$commands")
[ "$total" -gt 0 ] || { echo "$document: there are no commands for $path"; exit 1; }
done_commands=0
while IFS= read -r command <&3; do
  folder=.
  case $command in
    cmake*)
      if [ "$build" != "$source/build/release" ]; then
        echo "left out, this is another build: $command"
        done_commands=$((done_commands + 1))
        continue
      fi
      folder=$source
      ;;
  esac
  begin=$SECONDS code=0
  (cd "$folder" && timeout 280 bash -c "$command") >output 2>&1 || code=$?
  if [ "$code" -ne 0 ]; then
    tail -n 20 output
    echo "$document: \`$command\` ended with $code; $done_commands of $total commands went well"
    exit 1
  fi
  echo "$((SECONDS - begin)) s: $command"
  done_commands=$((done_commands + 1))
done 3<<<"$commands"
echo "$document: all $total commands for $path went well"
