#!/usr/bin/env bash
# Holds the cost model's collectives against SimGrid's SMPI, which simulates them message by message on described
# clusters: our communicator, compiled by smpicxx, on the simulated clock (collective_times.cpp).
#
#     bash tests/simulation/run.sh [--quick]      from the repository's root, after building the release preset
#
# Each collective runs under the algorithm whose formula it is held against. --quick: up to 16 ranks, some seconds, and
# fails where an error is above 5 percent. Without it up to 256 ranks (all-to-all up to 64), some minutes.
# Needs Debian's libsimgrid-dev. Exit 77: SimGrid is not here.
set -euo pipefail
cd "$(dirname "$0")/../.."

command -v smpicxx >/dev/null && command -v smpirun >/dev/null ||
  { echo "simulation: SimGrid is not here (Debian: libsimgrid-dev); nothing is compared."; exit 77; }
quick=false
[ "${1:-}" != --quick ] || quick=true
build=${CONCLAVE_BUILD:-build/release}
work=$build/simulation
mkdir -p "$work"

# What calls MPI is compiled anew, for SMPI's header; of the libraries nothing that calls MPI may come along.
libraries=("$build/parallel/libconclave_parallel.a")
libraries+=("$build/launch/libconclave_plan.a")
for folder in recipe kernels tensor device base; do libraries+=("$build/framework/$folder/libconclave_$folder.a"); done
for library in "${libraries[@]}"; do
  [ -f "$library" ] || { echo "simulation: $library is missing; build it first" >&2; exit 2; }
done
sources=(tests/simulation/collective_times.cpp parallel/mpi.cpp parallel/mpi_environment.cpp parallel/nccl/stand_in.cpp)
program=$work/collective_times
newest=$(ls -t "$program" "${sources[@]}" "${libraries[@]}" parallel/*.h launch/plan/*.h 2>/dev/null | head -1 || true)
[ "$newest" = "$program" ] ||
  smpicxx -std=c++20 -O1 -fPIC -fopenmp -I. -x c++ "${sources[@]}" -x none -Wl,--start-group "${libraries[@]}" -Wl,--end-group \
    -ldnnl -lyaml-cpp -lxxhash -o "$program"

# describe NAME RANKS_PER_NODE NODES: the same cluster for the model and for SimGrid. A message between nodes passes
# two links of half the latency; within a node each pair has a way of its own.
describe() {
  local near_latency=1e-6 near_bytes=8e9 latency=2e-6 bytes=12.5e9
  cat >"$work/$1.yaml" <<YAML
name: $1
precision: fp32
processors_per_node: $2
ranks_per_node: $2
products: {operations_per_second: 1, operand_bytes_per_second: 1}
grouped_products: {operations_per_second: 1, operand_bytes_per_second: 1}
attention: {operations_per_second: 1, scores_per_second: 1}
passes: {bytes_per_second: 1, exponentials_per_second: 1, optimizer_bytes_per_second: 1, call_seconds: 0}
within_node: {latency_seconds: $near_latency, message_seconds: 0, bytes_per_second: $near_bytes}
between_nodes: {latency_seconds: $latency, message_seconds: 0, bytes_per_second: $bytes}
collectives: {reduced_bytes_per_second: 1e18}
YAML
  cat >"$work/$1.xml" <<XML
<?xml version='1.0'?>
<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">
<platform version="4.1">
  <zone id="world" routing="Full">
    <cluster id="$1" prefix="node-" suffix="" radical="0-$(($3 - 1))" speed="1Gf" bw="${bytes}Bps" lat="1e-6s"
             sharing_policy="SPLITDUPLEX" loopback_bw="${near_bytes}Bps" loopback_lat="${near_latency}s"/>
  </zone>
</platform>
XML
  for node in $(seq 0 $(($3 - 1))); do for _ in $(seq "$2"); do echo "node-$node"; done; done >"$work/$1.hosts"
}

# simulate NAME RANKS SELECTION ALGORITHM COLLECTIVE BYTES...: lines of "collective ranks ... simulated modelled error".
# The selection is smpi's name for the algorithm. Links have the bandwidth and latency that they are described with,
# time passes on the network alone, and a send of any size ends when it has arrived, as the formulas have it.
simulate() {
  local name=$1 ranks=$2 selection=$3 algorithm=$4
  shift 4
  smpirun -np "$ranks" -platform "$work/$name.xml" -hostfile "$work/$name.hosts" \
    --cfg=network/model:CM02 --cfg=network/crosstraffic:0 --cfg=network/TCP-gamma:1e15 --cfg=network/weight-S:0 \
    --cfg=surf/precision:1e-12 --cfg=smpi/wtime:0 --cfg=smpi/test:1e-7 --cfg=smpi/send-is-detached-thresh:0 \
    --cfg=smpi/simulate-computation:no --cfg=smpi/privatization:no --cfg="$selection" --log=root.thres:error \
    "$program" "$work/$name.yaml" "$@" 2>"$work/errors.txt" |
    awk -v algorithm="$algorithm" '/ simulated / {
      for (i = 7; i < NF; i += 2) if ($i == algorithm) {
        printf "%-15s %-15s %5d ranks, %2d a node, %9d B: simulated %10.2f us, calculated %10.2f us, error %+6.1f %%\n",
               $1, algorithm, $2, $3, $4, 1e6 * $6, 1e6 * $(i + 1), 100 * ($(i + 1) / $6 - 1) } }' |
    tee -a "$work/results.txt"
}

: >"$work/results.txt"
sizes=(8192 1048576)
counts=(4 16)
$quick || { sizes=(8192 1048576 16777216); counts=(4 16 64 256); }
for ranks in "${counts[@]}"; do
  [ "$ranks" -lt 256 ] || sizes=(8192 1048576)  # 256 tensors of 16 MiB and their copies do not fit
  for together in 1 4; do
    [ "$together" -lt "$ranks" ] || continue
    describe cluster$together "$together" $((ranks / together))
    simulate cluster$together "$ranks" smpi/allreduce:rdb doubling all_reduce "${sizes[@]}"
    simulate cluster$together "$ranks" smpi/allreduce:lr ring all_reduce "${sizes[@]}"
    simulate cluster$together "$ranks" smpi/allgather:NTSLR ring all_gather "${sizes[@]}"
    simulate cluster$together "$ranks" smpi/allgather:rdb doubling all_gather "${sizes[@]}"
    simulate cluster$together "$ranks" smpi/reduce_scatter:ompi_ring ring reduce_scatter "${sizes[@]}"
    [ "$ranks" -gt 64 ] ||
      simulate cluster$together "$ranks" smpi/alltoallv:default posted_at_once all_to_all "${sizes[@]}"
  done
done

awk -v least="$($quick && echo 36 || echo 100)" -v most="$($quick && echo 5 || echo 10)" '
  { error = $(NF - 1); if (error < 0) error = -error; if (error > worst) worst = error; sum += error; ++count }
  END { if (!count) { print "simulation: nothing was compared, see errors.txt"; exit 1 }
        printf "simulation: %d comparisons, mean error %.1f %%, largest %.1f %%\n", count, sum / count, worst
        exit worst > most || count < least }' "$work/results.txt"
