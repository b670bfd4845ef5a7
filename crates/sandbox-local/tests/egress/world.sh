# Run by root in a new network namespace, which becomes the world: the text of its server, and a program with its
# arguments, which runs in a namespace behind it, the host's. Whatever leaves that arrives in the world, which has all
# addresses there are.
set -e
ulimit -n "$(ulimit -Hn)"
ip link set lo up
for family in -4 -6; do
    ip "$family" route add local default dev lo table 100
    ip "$family" rule add from all table 100 priority 40000
done
for number in 10 11 12 53; do
    ip address add "203.0.113.$number/32" dev lo
    ip address add "2001:db8::$number/128" dev lo nodad
done
# Sh must not give its place to it: it is what the namespace is found by.
unshare --net sh -ec '
    server=$1
    shift
    servers= world="nsenter --net=/proc/$PPID/ns/net"
    ip link set lo up
    ip link add out type veth peer name in netns "$PPID"
    ip address add 198.51.100.1/30 dev out
    ip address add 2001:db8:ffff::1/64 dev out nodad
    ip link set out up
    $world ip address add 198.51.100.2/30 dev in
    $world ip address add 2001:db8:ffff::2/64 dev in nodad
    $world ip link set in up
    # An address of the host that looks like any of the internet.
    ip address add 192.5.6.30/32 dev lo
    ip route add default via 198.51.100.2
    ip route add default via 2001:db8:ffff::2
    place=$(mktemp -d)
    trap "rm -r $place" EXIT
    mkfifo "$place/ready"
    # Who clones it needs no more than these files.
    export WORLD_REPOSITORY="$place/repository"
    git="git -c init.defaultBranch=main -c user.name=world -c user.email=world@a.example"
    $git init -q "$place/work"
    echo from the world >"$place/work/file"
    $git -C "$place/work" add file
    $git -C "$place/work" commit -qm "Say something"
    $git clone -q --bare "$place/work" "$WORLD_REPOSITORY"
    $git -C "$WORLD_REPOSITORY" update-server-info
    for where in world host; do
        enter=$([ $where = host ] || echo "$world")
        setpriv --pdeathsig KILL $enter /usr/bin/python3 -S -c "$server" $where >"$place/ready" &
        servers="$servers $!"
        read -r _ <"$place/ready"
    done
    "$@" && code=0 || code=$?
    kill $servers
    exit $code
' sh "$@" && exit 0 || exit $?
