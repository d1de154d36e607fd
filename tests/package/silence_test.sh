#!/usr/bin/env bash
# silence_test.sh SOURCE [FOLDER...]: below launch/ nothing prints, ends the process, or takes a signal, but for the
# logger's own writes to its file descriptor. Errors are exceptions there (framework/base/error.h).
set -euo pipefail
cd "$1"
shift
if [ $# -eq 0 ]; then set -- framework parallel layers optim; fi

speaks='(^|[^a-z_])(std::)?(printf|fprintf|vfprintf|puts|fputs|putchar|perror|syslog)[ ]*\(|std::(cout|cerr|clog)\b'
ends='(^|[^a-z_.>])(std::|::)?(exit|_exit|_Exit|quick_exit|abort|terminate)[ ]*\(|MPI_Abort'
signals='(^|[^a-z_])(std::|::)?(signal|sigaction|sigprocmask|set_terminate)[ ]*\('
# Allowed: what ends the job when launch/ asks for it (abort_job); the faults by which emulated devices see stray accesses.
allowed='^parallel/mpi_environment.cpp:|^framework/device/emulated_memory.cpp:'
found=$(grep -rnE "$speaks|$ends|$signals" --include='*.h' --include='*.cpp' --include='*.cu' --include='*.cuh' "$@" |
  grep -vE '^[^:]*:[0-9]+: *//' | grep -vE "$allowed" || true)
if [ -n "$found" ]; then
  echo "$found"
  echo "silence_test: the library speaks, ends the process or takes signals in these places"
  exit 1
fi
