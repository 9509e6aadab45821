#!/usr/bin/env bash
# Starts a private, real Slurm on this machine: munged, slurmctld and one slurmd for each emulated node, on loopback, without
# systemd, without reading or writing anything below /etc. scripts/setup.sh installs what it needs. Must run as root.
#
#   scripts/slurm/up.sh DIR      then `. DIR/env.sh`; scripts/slurm/down.sh DIR stops it
#
# DIR must be new: drain reasons survive in a state directory. Knobs are environment variables:
#   NODES=4 CPUS=16 MEM=64000 GPUS=8   emulated nodes, and what each of them has (MEM in MB)
#   PORT=17000                         the first of NODES + 10 ports on loopback
#   DB=0                               1 adds slurmdbd with a MariaDB, and with them sacct and limits of accounts
#   EXTRA=                             lines for slurm.conf; of a key given twice the last one holds
set -euo pipefail

DIR=${1:?usage: up.sh DIR}
NODES=${NODES:-4} CPUS=${CPUS:-16} MEM=${MEM:-64000} GPUS=${GPUS:-8} PORT=${PORT:-17000} DB=${DB:-0}
HOST=$(hostname -s)

die() {
    echo "up.sh: $*" >&2
    exit 1
}

# wait_for WHAT SECONDS COMMAND...
wait_for() {
    local what=$1 end=$((SECONDS + $2)) limit=$2
    shift 2
    until timeout "$limit" "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || die "$what did not come up; its log is in $DIR/log"
        sleep 0.05
    done
}

((EUID == 0)) || die "this script must run as root: slurmd starts jobs as their users"
((${#DIR} <= 70)) || die "$DIR is too long for the path of a socket (108 bytes)"
for program in munged slurmctld slurmd scontrol; do
    command -v "$program" >/dev/null || die "no $program on the PATH; scripts/setup.sh installs it"
done
[ ! -e "$DIR/conf" ] || die "$DIR was used before; down.sh $DIR --wipe, or take another"
mkdir -p "$DIR"/{pid,log,munge,state,spool,tmp,conf,dev}
# munged refuses folders of its socket that others can write to.
chmod 0755 "$DIR" "$DIR/munge"
DIR=$(realpath "$DIR")
CONF=$DIR/conf
export SLURM_CONF=$CONF/slurm.conf

(umask 077 && head -c 1024 /dev/urandom >"$DIR/munge/key")
munged --key-file="$DIR/munge/key" --socket="$DIR/munge/sock" --pid-file="$DIR/pid/munged.pid" \
    --log-file="$DIR/log/munged.log" --seed-file="$DIR/munge/seed"
wait_for munged 10 munge -S "$DIR/munge/sock" -n -o /dev/null

accounting="AccountingStorageType=accounting_storage/none"
if [ "$DB" = 1 ]; then
    # With munge the password is the path of its socket; the usual one in /run would be asked otherwise.
    accounting="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=$((PORT + 3))
AccountingStoragePass=$DIR/munge/sock
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu"
fi
gres=""
((GPUS == 0)) || gres="Gres=gpu:h100:$GPUS"
# cred_expire is also how long a requeued job waits before it may start again; 120 s by default.
# TmpFS is one for each emulated node, or mpi/pmix fails.
cat >"$CONF/slurm.conf" <<END
ClusterName=isoflop
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$((PORT + 1))
SlurmdPort=$((PORT + 2))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$DIR/munge/sock,cred_expire=5
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
TmpFS=$DIR/tmp/%n
SlurmctldPidFile=$DIR/pid/slurmctld.pid
SlurmdPidFile=$DIR/pid/slurmd-%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PreemptExemptTime=00:00:00
SwitchType=switch/none
MpiDefault=none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=300
SlurmdTimeout=10
SlurmctldTimeout=10
InactiveLimit=0
Waittime=0
JobRequeue=1
EnforcePartLimits=ALL
MaxArraySize=10001
MaxJobCount=20000
$accounting
NodeName=n[1-$NODES] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[$((PORT + 11))-$((PORT + 10 + NODES))] CPUs=$CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEM $gres State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=7-00:00:00 DefaultTime=1:00:00 DefMemPerCPU=100 PriorityTier=10 PreemptMode=off State=UP
PartitionName=low Nodes=ALL MaxTime=7-00:00:00 DefMemPerCPU=100 PriorityTier=1 PreemptMode=requeue GraceTime=0 State=UP
PartitionName=high Nodes=ALL MaxTime=7-00:00:00 DefMemPerCPU=100 PriorityTier=100 PreemptMode=off State=UP
${EXTRA:-}
END
# GPUs that are not there: Slurm wants character devices for a typed count, and copies of /dev/null will do.
: >"$CONF/gres.conf"
if ((GPUS > 0)); then
    for ((i = 0; i < GPUS; i++)); do mknod "$DIR/dev/gpu$i" c 1 3; done
    echo "NodeName=n[1-$NODES] Name=gpu Type=h100 File=$DIR/dev/gpu[0-$((GPUS - 1))]" >"$CONF/gres.conf"
fi
echo "CgroupPlugin=cgroup/v1" >"$CONF/cgroup.conf"
printf 'export SLURM_CONF=%q\n' "$SLURM_CONF" >"$DIR/env.sh"

if [ "$DB" = 1 ]; then
    for program in slurmdbd sacctmgr mariadbd mariadb-install-db; do
        command -v "$program" >/dev/null || die "no $program on the PATH; scripts/setup.sh installs it"
    done
    maria=$DIR/mariadb
    mkdir "$maria"
    mariadb-install-db --no-defaults --user=root --datadir="$maria/data" --auth-root-authentication-method=normal \
        --skip-test-db >"$DIR/log/mariadb-install.log" 2>&1 || die "mariadb-install-db failed; see $DIR/log"
    mariadbd --no-defaults --user=root --datadir="$maria/data" --socket="$maria/sock" --skip-networking \
        --pid-file="$DIR/pid/mariadbd.pid" --log-error="$DIR/log/mariadb.log" --innodb-buffer-pool-size=64M \
        --innodb-log-file-size=32M --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0 \
        --skip-name-resolve </dev/null >/dev/null 2>&1 &
    wait_for mariadbd 60 mariadb --no-defaults -S "$maria/sock" -u root -e "create database if not exists slurm_acct"
    cat >"$CONF/slurmdbd.conf" <<END
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/sock
DbdHost=localhost
DbdAddr=127.0.0.1
CommunicationParameters=NoInAddrAny
DbdPort=$((PORT + 3))
SlurmUser=root
PidFile=$DIR/pid/slurmdbd.pid
LogFile=$DIR/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageLoc=slurm_acct
StorageUser=root
END
    chmod 600 "$CONF/slurmdbd.conf"
    MYSQL_UNIX_PORT=$maria/sock slurmdbd
    wait_for slurmdbd 60 sacctmgr -n show cluster
    sacctmgr -i add cluster isoflop >/dev/null
    sacctmgr -i add account lab >/dev/null
    sacctmgr -i add user root account=lab >/dev/null
fi

slurmctld -f "$SLURM_CONF"
wait_for slurmctld 30 sh -c 'scontrol ping | grep -q UP'
for ((n = 1; n <= NODES; n++)); do
    mkdir "$DIR/spool/n$n" "$DIR/tmp/n$n"
    slurmd -f "$SLURM_CONF" -N "n$n"
done
# `sinfo -t idle` would also list nodes that are idle and drained.
wait_for "some slurmd" 60 sh -c "[ \"\$(sinfo -h -N -p main -o %t | grep -c '^idle\$')\" = $NODES ]"
