# shellcheck shell=bash
# What the commands of this folder share. A fleet is a number of private hosts on this
# machine. Each host is one process tree in namespaces of its own (net, mount, pid, uts,
# ipc), so that a host is gone with its first process and nothing of it can be left in
# the machine's networking, mounts or process list.
#
#   NUAGE_LAB    folder of all fleets' state        (default /var/tmp/nuage-lab)
#   NUAGE_FLEET  name of the fleet, [a-z0-9], <= 16 (default fleet)
#
# FLEET/sw.pid is the process that holds the switch's network namespace, and sw.up is there
# once the switch is; FLEET/hN is a host's state: pid, docker/, etc-docker/,
# etc-openvswitch/, var-nuage/, log/.
set -euo pipefail

FLEET_BIN=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB=${NUAGE_LAB:-/var/tmp/nuage-lab}
NAME=${NUAGE_FLEET:-fleet}
FLEET=$LAB/$NAME

die() {
    echo "fleet: $*" >&2
    exit 1
}

[[ $NAME =~ ^[a-z0-9]{1,16}$ ]] || die "NUAGE_FLEET=$NAME: want 1 to 16 of a-z and 0-9"
[[ $LAB == /* ]] || die "NUAGE_LAB=$LAB: want an absolute path"

needs() {
    local p missing=()
    [[ $EUID -eq 0 ]] || die "must run as root"
    for p in "$@"; do
        command -v "$p" >/dev/null || missing+=("$p")
    done
    [[ ${#missing[@]} -eq 0 ]] || die "missing programs: ${missing[*]} (Debian: apt-get install docker.io openvswitch-switch iproute2 util-linux)"
}

# started PID: the kernel's start time of a process, which tells it from a later one of
# the same number.
started() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    read -ra stat <<<"${stat##*) }"
    [[ ${stat[0]} != Z ]] || return 1
    echo "${stat[19]}"
}

# remember PID FILE, recall FILE: recall prints the pid while that very process lives.
remember() { echo "$1 $(started "$1")" >"$2"; }
recall() {
    local pid start
    read -r pid start 2>/dev/null <"$1" || return 1
    [[ $(started "$pid") == "$start" ]] || return 1
    echo "$pid"
}

# until_true SECONDS CMD...: polls CMD.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.02
    done
}

# host_dir HOST: the host's folder. HOST is 1, 2, …
host_dir() {
    [[ $1 =~ ^[1-9][0-9]?$ ]] || die "host $1: want a number from 1"
    echo "$FLEET/h$1"
}

# host_pid HOST: the host's first process, as this machine numbers it: the child of the
# remembered one.
host_pid() {
    local parent child
    if parent=$(recall "$(host_dir "$1")/pid"); then
        child=$(<"/proc/$parent/task/$parent/children")
        [[ -z $child ]] || { echo "${child%% *}" && return; }
    fi
    die "host $1 of fleet $NAME is not running"
}

kill_recalled() {
    local pid
    pid=$(recall "$1") || return 0
    kill -9 "$pid" 2>/dev/null || true
    until_true 20 eval "! started $pid" || die "process $pid does not die"
}

in_switch() {
    local pid
    pid=$(recall "$FLEET/sw.pid") || die "fleet $NAME has no switch"
    nsenter -t "$pid" -n -- "$@"
}

switch_start() {
    if recall "$FLEET/sw.pid" >/dev/null; then
        [[ -e $FLEET/sw.up ]] && return
        kill_recalled "$FLEET/sw.pid" # whoever made it did not come to an end
    fi
    mkdir -p "$FLEET"
    rm -f "$FLEET/sw.up"
    # The namespace's own process makes the switch: looked at from outside, a namespace may
    # still be the machine's.
    # shellcheck disable=SC2016 # that shell expands it
    setsid unshare --net bash -ec '
        ip link set lo up
        ip link add nuage-sw type bridge
        ip addr add 10.200.0.254/24 dev nuage-sw
        ip link set nuage-sw up
        touch "$1"
        exec sleep infinity' - "$FLEET/sw.up" </dev/null >"$FLEET/sw.log" 2>&1 9>&- &
    local pid=$!
    remember "$pid" "$FLEET/sw.pid"
    until_true 20 eval "[[ -e \$FLEET/sw.up ]] || ! started $pid" || true
    [[ -e $FLEET/sw.up ]] || die "cannot make the switch: $(<"$FLEET/sw.log")"
}

# host_plug HOST: the cable from the switch's port nuage-pHOST to the host's nuage-uplink.
# As a real card, that keeps its MAC address over a boot.
host_plug() {
    local pid sw
    pid=$(host_pid "$1")
    sw=$(recall "$FLEET/sw.pid") || die "fleet $NAME has no switch"
    in_switch ip link del "nuage-p$1" 2>/dev/null || true
    ip link add nuage-uplink netns "$pid" address "$(printf '02:00:0a:c8:00:%02x' "$1")" type veth peer name "nuage-p$1" netns "$sw"
    in_switch ip link set "nuage-p$1" master nuage-sw up
}

# host_start HOST: boots a host that is off and waits for its Docker.
host_start() {
    local dir pid
    dir=$(host_dir "$1")
    recall "$dir/pid" >/dev/null && return
    mkdir -p "$dir"/{docker,etc-docker,etc-openvswitch,var-nuage,log}
    rm -f "$dir"/{pid,up,uplink}
    mkfifo "$dir/uplink"
    # unshare stays outside as the parent of the host's process 1: each ends with the other.
    setsid unshare --net --mount --propagation private --pid --fork --kill-child --uts --ipc \
        --mount-proc "$FLEET_BIN/host-init" "$1" "$dir" </dev/null >"$dir/log/init.log" 2>&1 9>&- &
    pid=$!
    remember "$pid" "$dir/pid"
    until_true 10 grep -q . "/proc/$pid/task/$pid/children" || die "host $1 does not start: $(cat "$dir/log/init.log")"
    host_plug "$1"
    echo plugged >"$dir/uplink"
    until_true 60 eval "[[ -e $dir/up ]] || ! started $pid" || true
    [[ -e $dir/up ]] || die "host $1 does not start: $(tail -n 5 "$dir"/log/*.log)"
}

# host_kill HOST: as a power cut. Its folder stays.
host_kill() {
    local dir child
    dir=$(host_dir "$1")
    if child=$(host_pid "$1" 2>/dev/null); then
        # Once the namespace's first process is gone, so is every other in it.
        kill -9 "$child" 2>/dev/null || true
        until_true 20 eval "! started $child" || die "host $1 does not die"
    fi
    kill_recalled "$dir/pid"
    rm -f "$dir"/{pid,up}
    # Control groups are the machine's: what the host had made is empty now.
    find /sys/fs/cgroup -depth -type d -path "*/nuage-$NAME-h$1/*" -exec rmdir {} + 2>/dev/null || true
    find /sys/fs/cgroup -depth -type d -name "nuage-$NAME-h$1" -exec rmdir {} + 2>/dev/null || true
}

# Only one command at a time changes a fleet.
lock() {
    mkdir -p "$LAB"
    exec 9>"$LAB/$NAME.lock"
    flock 9
}
