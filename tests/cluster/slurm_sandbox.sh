#!/usr/bin/env bash
# A Slurm of one node, real daemons, in namespaces of its own: slurm_sandbox.sh COMMAND [ARGUMENTS...] starts it, runs the
# command in it and returns its exit code. Needs root and Debian's slurm-wlm, munge and iproute2. Nothing of the machine
# is changed: network, host name, processes and mounts are the sandbox's own, and all daemons end with it, however
# it ends. What the daemons say is in SLURM_SANDBOX (a fresh folder, removed at the end unless the variable named it).
set -euo pipefail

if [ "${1:-}" != --inside ]; then
  for program in unshare ip munged slurmctld slurmd; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null ||
      { echo "slurm_sandbox: there is no $program; apt-get install slurm-wlm munge iproute2" >&2; exit 5; }
  done
  [ "$(id -u)" -eq 0 ] || { echo "slurm_sandbox: needs root for its own network and mounts" >&2; exit 5; }
  # The sandbox's first process is this script: when it ends, the kernel ends every process in it.
  exec unshare --net --mount --uts --ipc --pid --fork --kill-child --mount-proc -- bash "$0" --inside "$@"
fi
shift
export PATH=$PATH:/usr/sbin:/sbin

node=node1 address=10.99.0.1
state=${SLURM_SANDBOX:-}
if [ -z "$state" ]; then
  state=$(mktemp -d)
  trap 'rm -rf "$state"' EXIT
fi
mkdir -p "$state"
chmod 755 "$state"
printf '127.0.0.1 localhost\n%s %s\n' "$address" "$node" >"$state/hosts"
mount --bind "$state/hosts" /etc/hosts
hostname "$node"
ip link set lo up
# Slurm looks for a way to the node's address; loopback's alone is not enough.
ip link add veth0 type veth peer name veth1
ip address add "$address/24" dev veth0
ip link set veth0 up
ip link set veth1 up

processors=$(nproc)
cat >"$state/slurm.conf" <<CONF
ClusterName=sandbox
SlurmctldHost=$node($address)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$state/munge.socket
CredType=cred/munge
StateSaveLocation=$state/controller
SlurmdSpoolDir=$state/node
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
SlurmctldDebug=info
SlurmdDebug=info
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=30
SchedulerParameters=sched_interval=5,batch_sched_delay=1
NodeName=$node NodeAddr=$address CPUs=$processors RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
mkdir -p "$state/controller" "$state/node"
export SLURM_CONF=$state/slurm.conf
dd if=/dev/urandom of="$state/munge.key" bs=128 count=1 status=none
chmod 400 "$state/munge.key"
munged --force --key-file="$state/munge.key" --socket="$state/munge.socket" --pid-file="$state/munge.pid" \
       --log-file="$state/munge.log" --seed-file="$state/munge.seed"
slurmctld -c
slurmd
for ((attempt = 0; attempt < 120; attempt++)); do
  [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ] && break
  sleep 0.5
done
if [ "$(sinfo --noheader --format=%t 2>/dev/null)" != idle ]; then
  echo "slurm_sandbox: the node does not get ready; the daemons say:" >&2
  tail -n 15 "$state"/*.log >&2
  exit 5
fi

set +e
"$@"
code=$?
scancel --user=root 2>/dev/null  # so that no job outlives the daemons that watch it
exit "$code"
