//! The host's network: services on its loopback, sockets without a path, packets, and everything beyond.

use crate::{
    attempt::attempt,
    lab::{Lab, Who, unique},
};
use sandbox_agent::protocol::zygote::weaken::{CAPABILITIES, NETWORK, SECCOMP};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

const CONNECT: &str = r#"
    import socket
    socket.create_connection((given("ADDRESS"), int(given("PORT"))), timeout=5)
    return "connected"
"#;

#[test]
fn services_on_the_hosts_loopback() {
    for address in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        // A machine may have no IPv6.
        let Ok(listener) = TcpListener::bind((address, 0)) else {
            assert!(address.is_ipv6());
            continue;
        };
        attempt(CONNECT)
            .given("ADDRESS", address)
            .given("PORT", listener.local_addr().unwrap().port())
            .fails("ECONNREFUSED")
            .works_without(NETWORK, Who::User, "connected");
    }
}

#[test]
fn datagrams_to_the_hosts_loopback() {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // That nobody receives the first datagram is told to the sender of the second.
    let code = r#"
        import socket
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.connect(("127.0.0.1", int(given("PORT"))))
        for _ in range(2):
            sender.send(b"x")
        return "sent"
    "#;
    let port = receiver.local_addr().unwrap().port();
    receiver.set_nonblocking(true).unwrap();
    let tried = attempt(code).given("PORT", port).fails("ECONNREFUSED");
    assert!(receiver.recv(&mut [0]).is_err(), "a datagram came out");
    tried.works_without(NETWORK, Who::User, "sent");
    assert!(receiver.recv(&mut [0]).is_ok());
}

#[test]
fn sockets_of_the_host_without_a_path() {
    let name = unique();
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let code = r#"
        import socket
        socket.socket(socket.AF_UNIX).connect("\0" + given("NAME"))
        return "connected"
    "#;
    attempt(code)
        .given("NAME", name)
        .fails("ECONNREFUSED")
        .works_without(NETWORK, Who::User, "connected");
}

#[tokio::test]
async fn sockets_of_another_sandbox_without_a_path() {
    let given = [("NAME", unique())];
    let listen = r#"
        import socket
        socket.socket(socket.AF_UNIX).bind("\0unused")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("\0" + given("NAME"))
        listener.listen()
        ready()
    "#;
    let connect = r#"
        import socket
        socket.socket(socket.AF_UNIX).connect("\0" + given("NAME"))
        return "connected"
    "#;
    for (walls, expected) in [(0, "ECONNREFUSED"), (NETWORK, "connected")] {
        let lab = Lab::without(walls);
        let (victim, attacker) = (lab.sandbox().await, lab.sandbox().await);
        let running = victim.start(Who::User, listen, &given).await;
        assert_eq!(
            attacker.python_given(Who::User, connect, &given).await,
            expected
        );
        running.finish().await;
    }
}

#[test]
fn names_of_the_hosts_sockets() {
    let name = unique();
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    attempt("return given('NAME') in read('/proc/net/unix')")
        .given("NAME", name)
        .fails("False")
        .works_without(NETWORK, Who::User, "True");
}

#[test]
fn interfaces_of_the_host() {
    let code = r#"
        import fcntl, socket
        def is_up(name):
            flags = fcntl.ioctl(socket.socket(), 0x8913, struct.pack("16sh14x", name.encode(), 0))
            return struct.unpack("16sh14x", flags)[1] & 1
        return any(is_up(name) for _, name in socket.if_nameindex() if name != "lo")
    "#;
    attempt(code)
        .fails("False")
        .works_without_as_on_host(NETWORK, Who::User, "True");
}

#[test]
fn anything_beyond() {
    // No packet is sent: this only asks for a route. The addresses are reserved for documentation.
    let code = r#"
        import socket
        for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
            try:
                socket.socket(family, socket.SOCK_DGRAM).connect((address, 9))
                return f"a route to {address}"
            except OSError as error:
                assert error.errno == errno.ENETUNREACH, error
        return "nothing"
    "#;
    attempt(code).fails("nothing").works_without_as_on_host(
        NETWORK,
        Who::User,
        "a route to 192.0.2.1",
    );
}

#[test]
fn packets_past_the_protocols() {
    attempt("import socket; socket.socket(17, socket.SOCK_RAW, 0); return 'open'")
        .fails("EAFNOSUPPORT")
        .still_fails_without(SECCOMP, Who::Root, "EPERM")
        .works_without(SECCOMP | CAPABILITIES, Who::Root, "open");
}

#[test]
fn raw_packets_of_a_protocol() {
    attempt("import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); return 'open'")
        .fails("EPERM")
        .works_without(CAPABILITIES, Who::Root, "open");
}

#[test]
fn the_machine_that_hosts_the_host() {
    attempt("import socket; socket.socket(40, socket.SOCK_STREAM); return 'open'")
        .fails("EAFNOSUPPORT")
        .works_without_as_on_host(SECCOMP, Who::User, "open");
}

#[test]
fn the_kernels_ciphers() {
    attempt("import socket; socket.socket(38, socket.SOCK_SEQPACKET); return 'open'")
        .fails("EAFNOSUPPORT")
        .works_without_as_on_host(SECCOMP, Who::User, "open");
}

#[test]
fn protocols_that_the_kernel_would_load() {
    // UDP-Lite, MPTCP and SCTP; netfilter, routing of packets through IPsec, and families by their names.
    for (family, kind, protocol) in [
        (2, 2, 136),
        (10, 1, 262),
        (2, 1, 132),
        (16, 3, 12),
        (16, 3, 6),
        (16, 3, 16),
    ] {
        let open =
            format!("import socket; socket.socket({family}, {kind}, {protocol}); return 'open'");
        attempt(open)
            .fails("EPROTONOSUPPORT")
            .works_without_as_on_host(SECCOMP, Who::User, "open");
    }
}

#[test]
fn every_other_family() {
    let code = r#"
        import socket
        made = []
        for family in range(64):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
                try:
                    socket.socket(family, kind)
                    made.append(family)
                except OSError:
                    pass
        return sorted(set(made))
    "#;
    // UNIX, INET, INET6 and NETLINK.
    attempt(code)
        .fails("[1, 2, 10, 16]")
        .ends_otherwise_without(SECCOMP | CAPABILITIES, Who::Root, "[1, 2, 10, 16]");
}

#[test]
fn settings_of_an_interface() {
    let code = r#"
        import fcntl, socket
        fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 0))
        return "down"
    "#;
    attempt(code)
        .fails("EPERM")
        .works_without(CAPABILITIES, Who::Root, "down");
}
