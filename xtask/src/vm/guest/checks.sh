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
check provider "$LOCAL_IT" --test-threads 2
check zygote "$AGENT_ZYGOTE" --test-threads 2
# A file of a gibibyte takes too long where every instruction is emulated.
check suite "$LOCAL_CONFORMANCE" --test-threads 2 --skip a_large_file
check container bash /vm/container.sh
check leftovers bash -c leftovers
