#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that Conclave is built with, and only those that are missing.
# With all of them present it says so and changes nothing. Needs root or sudo only when something is missing.
#   bash launch/install_packages.sh                        what the build needs; exit code 5 where it cannot be had
#   bash launch/install_packages.sh --optional PACKAGE...  these instead; names what cannot be had and goes on
set -euo pipefail

# oneDNN's CMake configuration looks for OpenCL, which libdnnl-dev only recommends: hence ocl-icd-opencl-dev.
packages=(
  build-essential cmake ninja-build ccache pkg-config
  libopenmpi-dev openmpi-bin libhdf5-dev hdf5-tools
  libdnnl-dev ocl-icd-opencl-dev libyaml-cpp-dev libsentencepiece-dev libxxhash-dev nlohmann-json3-dev libgtest-dev
  libpcre2-dev libicu-dev zlib1g-dev libzstd-dev liblzma-dev
  libprotobuf-dev protobuf-compiler libisal-dev libpng-dev
)
optional=''
if [ "${1:-}" = --optional ]; then
  optional=yes
  packages=("${@:2}")
elif [ $# -gt 0 ]; then
  echo "install_packages: '$1' came, expected nothing or --optional PACKAGE..." >&2
  exit 2
fi

# An optional package that is missing is named once, and the caller goes on without it.
without() {
  echo "install_packages: going on without $*"
  exit 0
}

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "install_packages: this is not Debian or Ubuntu, so nothing is installed. Needed are: ${packages[*]}" \
       "(or what your system calls them)." >&2
  exit 0
fi

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

list_missing() {
  missing=()
  for package in "${packages[@]}"; do
    is_installed "$package" || missing+=("$package")
  done
}

list_missing
if [ ${#missing[@]} -eq 0 ]; then
  echo "install_packages: all ${#packages[@]} packages are installed already."
  exit 0
fi

root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    if [ -n "$optional" ]; then without "${missing[*]}, since installing needs root or sudo."; fi
    echo "install_packages: these packages are missing, and installing needs root or sudo: ${missing[*]}" >&2
    exit 5
  fi
  root=(sudo)
  if [ ! -t 0 ]; then root=(sudo -n); fi  # nobody could type a password
  if [ -n "$optional" ] && ! "${root[@]}" true 2>/dev/null; then without "${missing[*]}, since sudo refused."; fi
fi

echo "install_packages: installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! "${root[@]}" apt-get update >"$log" 2>&1; then
  echo "install_packages: apt-get update failed; going on with the package lists that are here." >&2
fi

known=() unknown=()
for package in "${missing[@]}"; do
  if apt-cache show "$package" >/dev/null 2>&1; then known+=("$package"); else unknown+=("$package"); fi
done
if [ ${#unknown[@]} -gt 0 ] && [ -z "$optional" ]; then
  echo "install_packages: this system does not offer ${unknown[*]}." \
       "On Ubuntu enable the universe repository (add-apt-repository universe); otherwise check the network." >&2
  exit 5
fi

# install PACKAGE...: the last lines of the log say why it failed.
install() {
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >"$log" 2>&1
}
if [ -n "$optional" ]; then
  for package in "${known[@]}"; do install "$package" || true; done
elif ! install "${known[@]}"; then
  tail -n 15 "$log" >&2
  echo "install_packages: apt-get install failed; its last lines are above." >&2
  exit 5
fi
list_missing
if [ ${#missing[@]} -gt 0 ]; then
  if [ -n "$optional" ]; then without "${missing[*]}, which could not be installed."; fi
  echo "install_packages: still missing after the installation: ${missing[*]}" >&2
  exit 5
fi
echo "install_packages: done, all ${#packages[@]} packages are installed."
