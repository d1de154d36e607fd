#!/usr/bin/env bash
# Runs the command, which is nvcc with -Xptxas -v, and keeps what ptxas says of registers and spills beside the
# object, as OBJECT.ptxas; everything else goes on to stderr. tests/framework/kernels/device_resources.sh reads it.
log=/dev/null before=
for word in "$@"; do
  if [ "$before" = -o ]; then log=$word.ptxas; fi
  before=$word
done
said=$("$@" 2>&1 >/dev/null)
code=$?
about_kernels='^ptxas info|bytes stack frame|bytes cumulative stack size'
grep -E "$about_kernels" <<<"$said" >"$log"
grep -vE "$about_kernels" <<<"$said" | grep . >&2
exit $code
