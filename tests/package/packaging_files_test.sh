#!/usr/bin/env bash
# packaging_files_test.sh SOURCE: recipes for Docker, Apptainer and Spack name files and options that are there, and say
# the version of the project. They are not run here.
set -euo pipefail
cd "$1"
mistakes=0
complain() { echo "packaging_files_test: $*"; mistakes=$((mistakes + 1)); }
folder=launch/packaging
version=$(sed -n 's/^project(Conclave VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)

# COPY and %files take the whole tree, so what their commands name is looked for in it.
for file in "$folder/Dockerfile" "$folder/conclave.def"; do
  [ -f "$file" ] || { complain "there is no $file"; continue; }
  paths=$(grep -oE '(launch|cmake|tests|examples)/[A-Za-z0-9_./-]+\.(sh|yaml)' "$file" | sort -u)
  [ -n "$paths" ] || complain "$file names no file of the project"
  for path in $paths; do [ -e "$path" ] || complain "$file names $path, which is not there"; done
done
# Options that are given to CMake exist.
for option in $(grep -rhoE 'CONCLAVE_[A-Z]+' "$folder" | sort -u); do
  grep -qE "(option|set)\($option " CMakeLists.txt || complain "CMakeLists.txt has no $option"
done
grep -q "version(\"$version\"" "$folder/spack/package.py" || complain "package.py does not have version $version"
grep -q "^version: $version$" CITATION.cff || complain "CITATION.cff does not have version $version"
grep -q "^## $version" CHANGELOG.md || complain "CHANGELOG.md does not have version $version"
# What Debian's packages are called and what Spack's are: nothing that CMake looks for is left out.
for package in onednn hdf5 yaml-cpp sentencepiece xxhash nlohmann-json protobuf isa-l libpng mpi; do
  grep -q "depends_on(\"$package[\"@+~ ]" "$folder/spack/package.py" || complain "package.py does not depend on $package"
done
# The recipe of Spack's is a program in Python.
if command -v python3 >/dev/null; then
  python3 -m py_compile "$folder/spack/package.py" || complain "$folder/spack/package.py is not Python"
  rm -rf "$folder/spack/__pycache__"
elif [ "$mistakes" -eq 0 ]; then
  echo "packaging_files_test: skipped in part, since python3 is not installed: $folder/spack/package.py was not compiled."
  exit 77
fi
[ "$mistakes" -eq 0 ]
