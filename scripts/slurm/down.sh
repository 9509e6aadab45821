#!/usr/bin/env bash
# Stops what scripts/slurm/up.sh started, by its pid files: first its jobs, then its daemons.
#
#   scripts/slurm/down.sh DIR [--wipe]     --wipe also removes DIR
set -u
DIR=${1:?usage: down.sh DIR [--wipe]}
export SLURM_CONF=$DIR/conf/slurm.conf

# No such process, or one whose parent has not taken leave of it yet.
gone() {
    case $(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) in
    "" | Z* | X*) return 0 ;;
    *) return 1 ;;
    esac
}

# Prints the process of a pid file if it still is one of ours: numbers of processes are used again.
ours() {
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 1
    [ -n "$pid" ] && ! gone "$pid" || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qE 'slurm|munged|mariadbd' || return 1
    echo "$pid"
}

# stop SECONDS FILE...: SIGTERM to all, and SIGKILL to those that are still there after that time.
stop() {
    local seconds=$1 file pid pids=()
    shift
    for file in "$@"; do
        pid=$(ours "$file") && kill -TERM "$pid" 2>/dev/null && pids+=("$pid")
        rm -f "$file"
    done
    for ((i = 0; i < seconds * 50; i++)); do
        local left=()
        for pid in ${pids[@]+"${pids[@]}"}; do gone "$pid" || left+=("$pid"); done
        ((${#left[@]})) || return 0
        pids=("${left[@]}")
        sleep 0.02
    done
    kill -KILL "${pids[@]}" 2>/dev/null
}

# Jobs first, so that none of them outlives its slurmd. With a slurmd away they end only with the processes below.
if ours "$DIR/pid/slurmctld.pid" >/dev/null; then
    timeout 10 scancel --user="$(id -un)" 2>/dev/null
    for ((i = 0; i < 70; i++)); do
        [ -n "$(timeout 5 squeue -h -t R,CG,S -o %i 2>/dev/null)" ] || break
        sleep 0.1
    done
fi
stop 5 "$DIR"/pid/slurmd-*.pid
# A slurmd that was killed leaves behind the processes of its jobs.
for environ in /proc/[0-9]*/environ; do
    if { tr '\0' '\n' <"$environ"; } 2>/dev/null | grep -qxF "SLURM_CONF=$SLURM_CONF"; then
        pid=${environ#/proc/}
        pid=${pid%/environ}
        if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qE 'slurmstepd|slurm_script'; then
            kill -KILL "$pid" 2>/dev/null
        fi
    fi
done
stop 10 "$DIR/pid/slurmctld.pid"
stop 10 "$DIR/pid/slurmdbd.pid"
stop 20 "$DIR/pid/mariadbd.pid"
stop 5 "$DIR/pid/munged.pid"
[ "${2:-}" != --wipe ] || rm -rf "$DIR"
