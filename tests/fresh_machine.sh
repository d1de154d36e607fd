#!/usr/bin/env bash
# Runs the two commands of README.md on an empty system, made by debootstrap in a folder of its own. What a developer has
# installed by hand does not count there. Exit code 77: this machine cannot make an empty system.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash tests/fresh_machine.sh [SUITE] [MIRROR] [--full [--cached]] [--user] [--without PACKAGE] [--keep]

Makes an empty root of SUITE from MIRROR, copies this checkout into it without .git, and runs the two commands inside.

  SUITE              bookworm, trixie, or another that debootstrap knows; this system's own by default
  MIRROR             an archive of the suite; the first of this system's APT sources by default
  --full             `bash launch/quickstart.sh` and `bash tests/run.sh` from nothing, without a compiler cache.
                     By default the short form: `bash launch/quickstart.sh --short` and one test program, with this
                     system's compiler cache bound in; 8 minutes at most once the cache is warm
  --cached           binds the compiler cache in for --full too: half of the time, and no figure for a first build
  --user             a user without root or sudo runs the commands in a folder with a space in its name; root installs
                     the packages of launch/install_packages.sh before, and none that only tests need
  --without PACKAGE  takes PACKAGE from the copied list of packages; the test passes when the quickstart fails then
  --keep             leaves the root for a look, and says where it is

Needs root, debootstrap, a mirror that answers, and 8 GB of disk (--full: 16) below TMPDIR or /var/tmp.
Downloaded packages are kept in ~/.cache/conclave for the next time.

Examples:
  bash tests/fresh_machine.sh
  bash tests/fresh_machine.sh trixie --full
  bash tests/fresh_machine.sh jammy http://archive.ubuntu.com/ubuntu
  bash tests/fresh_machine.sh bookworm --without ocl-icd-opencl-dev
TEXT
}
say() { echo "tests/fresh_machine.sh: $*"; }
refuse() {
  say "$*; bash tests/fresh_machine.sh --help tells more." >&2
  exit 2
}
skip() {
  say "skipped: $*."
  exit 77
}

cd "$(dirname "$0")/.."
full='' cached='' user='' without='' keep='' places=()
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --full) full=yes ;;
    --cached) cached=yes ;;
    --user) user=yes ;;
    --keep) keep=yes ;;
    --without) [ $# -ge 2 ] || refuse "--without came without a package"; without=$2; shift ;;
    -*) refuse "'$1' is not known" ;;
    *) places+=("$1") ;;
  esac
  shift
done
[ ${#places[@]} -le 2 ] || refuse "'${places[2]}' came after a suite and a mirror"
suite=${places[0]:-$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)}
[ -n "$suite" ] || refuse "this system names no suite, so one must come"
if [ -n "$without" ] && ! grep -q -w -e "$without" launch/install_packages.sh; then
  refuse "--without $without came, but launch/install_packages.sh does not name that package"
fi

# --- what it takes --------------------------------------------------------------------------------------------------

[ "$(id -u)" -eq 0 ] || skip "an empty root needs root"
command -v debootstrap >/dev/null || skip "debootstrap is not installed"
unshare --mount --pid --fork true 2>/dev/null || skip "this system allows no mounts of one's own (unshare)"
mirror=${places[1]:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' 2>/dev/null |
  grep -E '/(debian|ubuntu)/?$' | head -n 1)}
[ -n "$mirror" ] || skip "the APT sources of this system name no mirror"
wget -q -T 20 -t 2 -O /dev/null "${mirror%/}/dists/$suite/Release" || skip "$mirror has no suite $suite, or does not answer"

# --- an empty root --------------------------------------------------------------------------------------------------

begin=$SECONDS
cache=${XDG_CACHE_HOME:-$HOME/.cache}/conclave/fresh_machine/$suite
root=$(mktemp -d "${TMPDIR:-/var/tmp}/conclave-fresh-$suite-XXXXXX")
log=$root.log
chmod 755 "$root"  # the root of a system is for everybody
mkdir -p "$cache/archives/partial"
exec 9>"$cache/lock"
flock 9  # one run of a suite at a time: APT locks its packages
finish() {
  if [ -n "$keep" ]; then say "the root is $root, what it printed is $log"; else rm -rf --one-file-system "$root" "$log"; fi
}
trap finish EXIT

say "making an empty root of $suite from $mirror"
debootstrap --variant=minbase --cache-dir="$cache/archives" "$suite" "$root" "$mirror" >"$log" 2>&1 ||
  { tail -n 5 "$log" >&2; say "FAILED: debootstrap could not make a root of $suite, for the reason above." >&2; exit 1; }
# Ubuntu's APT looks for some packages in universe.
[ "${mirror%/}" = "${mirror%ubuntu*}" ] || echo "deb $mirror $suite main universe" >"$root/etc/apt/sources.list"
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"

home=/root checkout=/root/conclave
if [ -n "$user" ]; then
  home=/home/ada checkout="/home/ada/a folder/conclave"
  chroot "$root" useradd --create-home ada
fi
mkdir -p "$root$checkout"
if git rev-parse --git-dir >/dev/null 2>&1; then
  git ls-files -z --cached --others --exclude-standard
else
  find . -path ./build -prune -o -path ./data -prune -o -path ./runs -prune -o -type f -print0
fi | while IFS= read -r -d '' file; do
  if [ -e "$file" ]; then printf '%s\0' "$file"; fi
done | tar --create --null --files-from=- | tar --extract --no-same-owner -C "$root$checkout"
if [ -n "$without" ]; then
  sed -i "s/\(^\|[[:space:]]\)$without\([[:space:]]\|\$\)/ /" "$root$checkout/launch/install_packages.sh"
fi
if [ -n "$user" ]; then chroot "$root" chown -R ada:ada "$home"; fi

# Mounts vanish with the process that made them, so nothing can be left behind. The compiler cache is this
# system's where a build from nothing is not the question; a user may not write to it.
compiler_cache=
if { [ -z "$full" ] || [ -n "$cached" ]; } && command -v ccache >/dev/null; then
  compiler_cache=$(ccache --get-config cache_dir)
  mkdir -p "$compiler_cache" "$root/var/cache/ccache"
fi
export root home checkout compiler_cache archives=$cache/archives
inside() { # inside USER COMMAND...: in the checkout of the root, with nothing of this environment
  as=$1 unshare --mount --pid --fork --kill-child bash -c '
    set -e
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    mount --bind "$archives" "$root/var/cache/apt/archives"
    environment=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb)
    if [ -n "$compiler_cache" ]; then
      mount --bind "$compiler_cache" "$root/var/cache/ccache"
      environment+=(CCACHE_DIR=/var/cache/ccache)
      if [ "$as" != root ]; then environment+=(CCACHE_READONLY=1 CCACHE_TEMPDIR=/tmp); fi
    fi
    become=()
    if [ "$as" != root ]; then become=(setpriv --reuid "$as" --regid "$as" --init-groups); environment+=(HOME="$home"); else environment+=(HOME=/root); fi
    exec chroot "$root" env -i "${environment[@]}" ${become[@]+"${become[@]}"} bash -c "cd \"\$0\" && exec \"\$@\"" "$checkout" "$@"
  ' - "${@:2}" </dev/null
}

# --- the commands ---------------------------------------------------------------------------------------------------

rows=()
# step USER COMMAND...: prints what the command prints, and notes its wall and processor time.
step() {
  local start=$SECONDS code=0 words="${*:2}" seconds
  say "$words, as $1 in $checkout"
  TIMEFORMAT='processor seconds: %U %S'
  { time inside "$@"; } 2>&1 | tee "$log" | sed -u 's/^/    /' || code=$?
  seconds=$(awk '/^processor seconds: / { s = $3 + $4 } END { printf "%.0f", s }' "$log")
  rows+=("$(printf '%-62s %5d s, of processors %5d s, exit code %d' "$words" $((SECONDS - start)) "$seconds" "$code")")
  return "$code"
}

who=root
if [ -n "$user" ]; then
  who=ada
  step root bash launch/install_packages.sh || { say "FAILED: the packages were not installed." >&2; exit 1; }
fi
code=0
if [ -n "$full" ]; then
  step "$who" bash launch/quickstart.sh || code=1
  if [ -z "$without" ] && [ "$code" -eq 0 ]; then step "$who" bash tests/run.sh || code=1; fi
else
  step "$who" bash launch/quickstart.sh --short || code=1
  if [ -z "$without" ] && [ "$code" -eq 0 ]; then step "$who" bash tests/run.sh --only autograd_test || code=1; fi
fi

printf '%s\n' "${rows[@]}"
system=$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' "$root/etc/os-release")
if [ -n "$without" ]; then
  [ "$code" -ne 0 ] || { say "FAILED: without $without the quickstart came through, so this test sees no missing package." >&2; exit 1; }
  say "run: without $without the quickstart fails on an empty $system, as it should, after $((SECONDS - begin)) s."
elif [ "$code" -ne 0 ]; then
  say "FAILED: on an empty $system the last command above did not come through, after $((SECONDS - begin)) s." >&2
  exit 1
else
  say "run: both commands${full:+, in full,}${cached:+ with compiled objects from a cache,} came through on an empty $system in $((SECONDS - begin)) s."
fi
