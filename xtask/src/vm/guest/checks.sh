# What is shown on cgroup version 2 with controllers.

# Groups, and processes in them, that sandboxes have left behind.
leftovers() {
    local left
    left=$(find /sys/fs/cgroup -mindepth 2 -type d -path '*/sandbox/*')
    echo "groups left behind: ${left:-none}"
    [ -z "$left" ]
}
export -f leftovers

check doctor "$SANDBOX" doctor
# The release's kernel has no file system in memory whose owners can be mapped, and the guest no modules for others.
disks=(filesystems:: limits::a_full_disk limits::a_sandbox_with_a_disk limits::a_disk_larger)
check provider "$LOCAL_IT" --test-threads 2 $(printf -- '--skip %s ' "${disks[@]}")
check zygote "$AGENT_ZYGOTE" --test-threads 2
# A file of a gibibyte takes too long where every instruction is emulated.
check suite "$LOCAL_CONFORMANCE" --test-threads 2 --skip a_large_file
check container bash /vm/container.sh
check leftovers bash -c leftovers
