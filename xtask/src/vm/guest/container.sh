# A container's view: a group with processes is the top of the hierarchy that can be seen.
set -euo pipefail
top=/sys/fs/cgroup

# Fails unless the doctor says `$1`.
limits_are() {
    local said
    said=$("$SANDBOX" doctor)
    echo "$said"
    [[ $said == *"$1"* ]] || { echo "the doctor does not say: $1"; exit 1; }
}

inside() {
    mount -t cgroup2 none $top
    # Processes and children with controllers do not go together below the real top: no limit can be set.
    limits_are 'cannot be limited: memory, cpus, processes'
    [ "$("$SANDBOX" run -c 'print(1)')" = 1 ]
    if "$SANDBOX" run --memory 64M -c 'print(2)'; then
        echo 'a limit was promised that does not hold'
        exit 1
    fi
    # The cure that the doctor names.
    mkdir $top/inner
    for process in $(cat $top/cgroup.procs); do
        echo "$process" >$top/inner/cgroup.procs || true
    done
    limits_are 'memory, cpus and processes can be limited'
    local code=0
    "$SANDBOX" run --memory 64M -c 'bytearray(1 << 30)' || code=$?
    [ $code = 137 ] || { echo "exit $code of a program that used up the memory"; exit 1; }
}

if [ "${1:-}" = inside ]; then
    inside
    exit
fi
echo '+cpu +memory +pids' >$top/cgroup.subtree_control
mkdir $top/container
unshare --mount bash -c "echo \$\$ >$top/container/cgroup.procs && umount $top && exec unshare --cgroup bash $0 inside"
# What the container has left is its own.
find $top/container -depth -mindepth 1 -type d -exec rmdir {} +
rmdir $top/container
