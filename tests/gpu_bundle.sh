#!/usr/bin/env bash
# Packs what proves and measures the device cuda on a machine that has nothing of Conclave's.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash tests/gpu_bundle.sh DIR [--preset NAME] [--archive FILE]

Builds the preset and packs its programs, the shared libraries that they need, recipes and tokens into DIR, which must
not exist. Copy DIR, or the archive, to a machine with an NVIDIA GPU and start `bash DIR/run.sh` there. It needs glibc
of Debian 12 or later, a driver for CUDA 13, and cuBLAS 13 of a CUDA Toolkit or of a Python package. It needs no MPI,
HDF5, yaml-cpp, NCCL, compiler or network.

  --preset NAME    bundle by default, whose programs run on any x86-64; release packs what this machine alone runs, with
                   the emulated device and without CUDA
  --archive FILE   also writes DIR as FILE, a .tar.xz

Examples:
  bash tests/gpu_bundle.sh build/gpu --archive build/gpu.tar.xz
  bash build/gpu/run.sh --device emulated
TEXT
}
refuse() {
  echo "tests/gpu_bundle.sh: $*; bash tests/gpu_bundle.sh --help tells more." >&2
  exit 2
}

directory='' preset=bundle archive=''
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --preset) [ $# -ge 2 ] || refuse "--preset came without a name"; preset=$2; shift ;;
    --archive) [ $# -ge 2 ] || refuse "--archive came without a file"; archive=$(realpath -m "$2"); shift ;;
    -*) refuse "'$1' is not known" ;;
    *) [ -z "$directory" ] || refuse "'$1' came after the directory"; directory=$(realpath -m "$1") ;;
  esac
  shift
done
[ -n "$directory" ] || refuse "no directory came"
[ ! -e "$directory" ] || refuse "$directory is there already"
cd "$(dirname "$0")/.."

# The device tests of one process, by their targets; run.sh knows what each is about.
tests=(kernels_test emulated_model_test device_layout_test mixed_precision_test evaluator_test parallel_mpi_test)
log=build/gpu_bundle.log
mkdir -p build
echo "tests/gpu_bundle.sh: building the preset $preset"
if ! { cmake --preset "$preset" && nice cmake --build --preset "$preset" --target conclave "${tests[@]}"; } >"$log" 2>&1; then
  grep -A 15 -E 'FAILED:|[Ee]rror' "$log" | head -n 40 >&2 || true
  echo "tests/gpu_bundle.sh: the build failed; all of its output is in $log." >&2
  exit 1
fi

partial=$directory.partial
rm -rf "$partial"
trap 'rm -rf "$partial"' EXIT
mkdir -p "$partial"/{bin,lib/stand_in,recipes,data}
build=build/$preset
programs=("$build/conclave")
for name in "${tests[@]}"; do programs+=("$(find "$build/tests" -name "$name" -type f -perm -u+x | head -n 1)"); done
for program in "${programs[@]}"; do strip -o "$partial/bin/${program##*/}" "$program"; done

# Libraries that the target has: those of glibc and the driver. Those that it must have: cuBLAS and, for several ranks,
# NCCL. Where these are not found a library stands in for each, whose every call says so.
of_target='^(ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libresolv|libutil|libcuda)\.so'
of_nvidia='^lib(cublas|cublasLt|nccl)\.so'
ldd "${programs[@]}" | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u | while read -r name path; do
  if [[ $name =~ $of_target || $name =~ $of_nvidia ]]; then continue; fi
  cp -L "$path" "$partial/lib/$name"
done
# Each library finds the others beside it, since a program's DT_RPATH also serves the libraries that it loads.
needed=$(for program in "${programs[@]}"; do readelf -d "$program"; done | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u)
for name in $needed; do
  [[ $name =~ $of_nvidia ]] || continue
  stem=${name%%.so*}
  # Symbols carry the version of their library, or none (NCCL). Calls that give text have names of their own.
  nm -D --undefined-only "${programs[@]}" | sed -n 's/.* U //p' | sort -u >"$partial/symbols"
  case $stem in
    libcublas) pattern='@libcublas\.so' ;;
    libcublasLt) pattern='@libcublasLt\.so' ;;
    *) pattern='^nccl' ;;
  esac
  grep -E "$pattern" "$partial/symbols" | sed 's/@.*//' >"$partial/names"
  {
    while read -r symbol; do
      case $symbol in
        *String | *LastError) echo "const char* $symbol(void) { return \"$name was not found on this machine\"; }" ;;
        *) echo "int $symbol(void) { return 1; }" ;;
      esac
    done <"$partial/names"
  } >"$partial/stand_in.c"
  printf '%s { global: *; };\n' "$name" >"$partial/stand_in.map"
  versions=()
  if [ "$stem" != libnccl ]; then versions=(-Wl,--version-script="$partial/stand_in.map"); fi
  cc -shared -fPIC -Wl,-soname,"$name" "${versions[@]}" -o "$partial/lib/stand_in/$name" "$partial/stand_in.c"
done
rm -f "$partial"/{symbols,names,stand_in.c,stand_in.map}
# run.sh puts what it finds on the target here; until then the programs start with what stands in.
mkdir "$partial/lib/found"
for path in "$partial"/lib/stand_in/*; do
  if [ -e "$path" ]; then ln -s "../stand_in/${path##*/}" "$partial/lib/found/"; fi
done

cp tests/gpu/run.sh tests/gpu/small.yaml "$partial"
cp examples/benchmark.yaml examples/cluster/qwen3-30b-a3b.yaml "$partial/recipes"
cp examples/benchmark/twin.py "$partial"
mv "$partial/small.yaml" "$partial/recipes"
# A few hundred kilobytes of text are enough for twenty steps: the project's own.
find docs framework -name '*.md' -o -name '*.h' | LC_ALL=C sort | head -n 120 | xargs cat >"$partial/data/text.txt"
"$build/conclave" tokenize --tokenizer bytes --document-separator file --output "$partial/data/text" "$partial/data/text.txt" >/dev/null
rm "$partial/data/text.txt"
git describe --always --dirty >"$partial/version" 2>/dev/null || echo unknown >"$partial/version"
mv "$partial" "$directory"

megabytes() { awk -v bytes="$1" 'BEGIN { printf "%.1f MB", bytes / 1e6 }'; }
echo "tests/gpu_bundle.sh: $directory holds $(megabytes "$(du -sb "$directory" | cut -f1)"), ${#programs[@]} programs and $(find "$directory/lib" -maxdepth 1 -type f | wc -l) libraries"
if [ -n "$archive" ]; then
  # The programs share most of their code: a window that reaches from one to the next halves them.
  tar -C "$(dirname "$directory")" -c "$(basename "$directory")" | xz -T1 --lzma2=preset=6,dict=128MiB >"$archive.partial"
  mv "$archive.partial" "$archive"
  echo "tests/gpu_bundle.sh: $archive has $(megabytes "$(stat -c %s "$archive")")"
fi
