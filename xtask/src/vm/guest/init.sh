#!/bin/bash
# The guest's own system: mounts, cgroup version 2 with all its controllers, and then the checks.
mount -t proc none /proc
mount -t sysfs none /sys
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
mount -t devpts none /dev/pts
mount -t tmpfs none /dev/shm
mount -t tmpfs none /run
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
. /vm/programs.sh
# Tests of one crate run in one process here, and each sandbox takes some descriptors.
ulimit -n 20000

# Runs a check. The host reads the lines that start with `@`.
check() {
    local name=$1
    shift
    echo "@begin $name"
    timeout --kill-after=5 2400 "$@" </dev/null 2>&1 | cat
    echo "@end $name ${PIPESTATUS[0]}"
}

cd /
. /vm/checks.sh
echo "@done"
sync
echo o >/proc/sysrq-trigger
sleep 60
