#!/usr/bin/env bash
# What run.sh says of parts that pass, fail, hang or lack a library, with programs that do just that. With --full a real
# bundle is packed: it runs on the emulated device, starts in an empty root of Debian 12, and sees a wrong kernel.
#   bash tests/gpu/bundle_test.sh [--full]
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fail() {
  echo "bundle_test.sh: $*" >&2
  exit 1
}

# program NAME: a stand-in for a program of the bundle, whose text comes on standard input.
bundle=$scratch/bundle
mkdir -p "$bundle"/{bin,lib/stand_in,recipes,data}
cp tests/gpu/run.sh "$bundle"
program() {
  { echo '#!/bin/sh'; cat; } >"$bundle/bin/$1"
  chmod +x "$bundle/bin/$1"
}
program conclave <<<'printf "GPUs\n  OK       none; training.device is cpu\n\n"'
program kernels_test <<<'echo "[  PASSED  ] 9 tests."'
program emulated_model_test <<<'printf "values.cpp:7: Failure\n[  FAILED  ] Model.Gradients\n"; exit 1'
program device_layout_test <<<'echo "a \"quoted\" \\ line"; sleep 600 & wait'
program mixed_precision_test <<<'kill -SEGV $$'

# state REPORT PART: what the report says of a part.
state() { sed -n 's/.*"name": "'"$2"'", "state": "\([^"]*\)".*/\1/p' "$1/gpu_report.json"; }
expect() { # REPORT PART STATE
  [ "$(state "$1" "$2")" = "$3" ] || { cat "$1/gpu_report.json" >&2; fail "the part $2 is said to be '$(state "$1" "$2")', expected '$3'"; }
}

# Without a GPU: one sentence, exit code 2, no report.
code=0
bash "$bundle/run.sh" --report "$scratch/none" >"$scratch/out" 2>&1 || code=$?
[ "$code" -eq 2 ] && grep -q 'this machine has no GPU' "$scratch/out" || fail "without a GPU: exit code $code, $(cat "$scratch/out")"
[ ! -e "$scratch/none/gpu_report.json" ] || fail "a report was written without a GPU"
for wrong in '--device tpu' '--limit 0' '--only nothing' '--what'; do
  code=0
  bash "$bundle/run.sh" $wrong >"$scratch/out" 2>&1 || code=$?
  [ "$code" -eq 2 ] || fail "$wrong came through with exit code $code"
done

# On the emulated device: passed, failed, cut off, and what comes after the limit.
code=0 begin=$SECONDS
bash "$bundle/run.sh" --device emulated --limit 16 --report "$scratch/report" --only kernels,model,precision,sanitizer,layouts,evaluation \
  >"$scratch/out" 2>&1 || code=$?
[ "$code" -eq 1 ] || fail "failed parts gave exit code $code, expected 1"
[ $((SECONDS - begin)) -le 20 ] || fail "a limit of 16 s took $((SECONDS - begin)) s"
expect "$scratch/report" kernels passed
expect "$scratch/report" model failed
expect "$scratch/report" layouts 'cut off'
expect "$scratch/report" evaluation 'not run'
grep -q 'Model.Gradients failed' "$scratch/report/gpu_report.txt" || fail "the report does not name the case that failed"
if pgrep -f "$bundle/bin/device_layout_test" >/dev/null; then fail "what hung is still running"; fi
if command -v python3 >/dev/null; then python3 -m json.tool "$scratch/report/gpu_report.json" >/dev/null || fail "the report is no JSON"; fi

# A crash is a failure; a part for GPUs alone does not run.
code=0
bash "$bundle/run.sh" --device emulated --report "$scratch/report" --only precision,sanitizer >"$scratch/out" 2>&1 || code=$?
expect "$scratch/report" precision failed
expect "$scratch/report" sanitizer 'not run'

# With a GPU and without cuBLAS no part can run, and each says why. A case that skips the GPU is a failure.
program conclave <<<'printf "GPUs\n  OK       GPU 0: NVIDIA Example, 80 GiB\n\n"'
touch "$bundle/lib/stand_in/libcublas.so.none"
code=0
bash "$bundle/run.sh" --report "$scratch/report" --only kernels >"$scratch/out" 2>&1 || code=$?
expect "$scratch/report" kernels 'not run'
grep -q 'libcublas.so.none was not found' "$scratch/report/gpu_report.txt" || fail "the report does not say where cuBLAS was looked for"
rm "$bundle/lib/stand_in/libcublas.so.none"
program kernels_test <<<'printf "[  SKIPPED ] OpTableOnCuda.RunsWithTheOthers\n[  PASSED  ] 9 tests.\n"'
code=0
bash "$bundle/run.sh" --report "$scratch/report" --only kernels >"$scratch/out" 2>&1 || code=$?
expect "$scratch/report" kernels failed
echo "bundle_test.sh: run.sh tells how parts end."
[ "${1:-}" = --full ] || exit 0

# A real bundle. Its parts run on the emulated device; its archive stays small.
real=$scratch/real
bash tests/gpu_bundle.sh "$real" --archive "$scratch/real.tar.xz"
[ "$(stat -c %s "$scratch/real.tar.xz")" -lt 50000000 ] || fail "the archive has 50 MB or more"
bash "$real/run.sh" --device emulated --report "$scratch/report" || fail "a part of the real bundle did not pass"

# A wrong kernel: a norm divides by one element too many.
plain=$scratch/source
mkdir "$plain"
git ls-files -z | tar -c --null -T - | tar -x -C "$plain"
kernel=framework/kernels/cuda/norm.cuh
sed -i 's/static_cast<float>(width) + epsilon/static_cast<float>(width + 1) + epsilon/' "$plain/$kernel"
! cmp -s "$plain/$kernel" "$kernel" || fail "$kernel has no place for the mistake"
(cd "$plain" && cmake --preset release && nice cmake --build --preset release --target kernels_test) >"$scratch/planted.log" 2>&1 ||
  fail "the planted mistake does not compile: $(tail -n 3 "$scratch/planted.log")"
cp "$plain/build/release/tests/framework/kernels/kernels_test" "$real/bin/kernels_test"
code=0
bash "$real/run.sh" --device emulated --report "$scratch/report" --only kernels || code=$?
[ "$code" -eq 1 ] || fail "a wrong kernel was not seen"
expect "$scratch/report" kernels failed

# An empty root: no package of ours.
if ! command -v debootstrap >/dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "bundle_test.sh: the empty root is skipped, it needs root and debootstrap."
  exit 0
fi
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' 'Codename: bookworm' | head -n 1)
debootstrap --variant=minbase bookworm "$scratch/root" ${mirror:+"$mirror"} >"$scratch/debootstrap.log" 2>&1 ||
  fail "debootstrap failed: $(tail -n 2 "$scratch/debootstrap.log")"
rm -rf "$real"
bash tests/gpu_bundle.sh "$scratch/root/bundle"
for name in "$scratch"/root/bundle/bin/*_test; do
  chroot "$scratch/root" "/bundle/bin/${name##*/}" --gtest_list_tests >/dev/null || fail "${name##*/} does not start in an empty root"
done
chroot "$scratch/root" /bundle/bin/conclave --version || fail "conclave does not start in an empty root"
code=0
chroot "$scratch/root" bash /bundle/run.sh --report /report >"$scratch/out" 2>&1 || code=$?
[ "$code" -eq 2 ] && grep -q 'has no GPU' "$scratch/out" || fail "in an empty root without a GPU: exit code $code, $(cat "$scratch/out")"
mount --bind /dev "$scratch/root/dev" && mount -t proc proc "$scratch/root/proc"
code=0
chroot "$scratch/root" bash /bundle/run.sh --device emulated --report /report --only model,training,products || code=$?
umount "$scratch/root/dev" "$scratch/root/proc"
[ "$code" -eq 0 ] || fail "a part failed in an empty root"
echo "bundle_test.sh: the real bundle runs here and in an empty root, and sees a wrong kernel."
