//! The kernel's side of it, in networks that threads of the test make for themselves.

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;

use super::*;
use crate::sys::{namespace, pipe, testing};

/// Does `work` where the network is new, and everything in it is caught.
fn where_caught(prepare: fn(), work: fn(Caught)) {
    let thread = std::thread::spawn(move || {
        testing::unshare_network().expect("this test makes a network, for which it needs root");
        namespace::bring_loopback_up().unwrap();
        prepare();
        work(catch().unwrap());
    });
    thread.join().unwrap();
}

fn leave_as_it_is() {}

/// Whether there is IPv6 in this network, which may have been left out when the kernel started.
fn has_ipv6() -> bool {
    let is_off = fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6");
    is_off.is_ok_and(|is_off| is_off.trim() == "0")
}

fn switch_ipv6_off() {
    if has_ipv6() {
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    }
}

/// Connects, and returns which address is told to who accepts.
fn meant(listener: &TcpListener, address: &str) -> String {
    let _stream = TcpStream::connect(address).unwrap();
    let own = listener.accept().unwrap().0.local_addr().unwrap();
    std::net::SocketAddr::new(own.ip().to_canonical(), own.port()).to_string()
}

fn listener(caught: &Caught) -> TcpListener {
    pipe::set_nonblocking(caught.tcp.as_fd(), false).unwrap();
    caught.tcp.try_clone().unwrap().into()
}

#[test]
fn connections_to_all_addresses_are_caught_and_none_is_tracked() {
    where_caught(leave_as_it_is, |caught| {
        assert_eq!(caught.family == Family::V6, has_ipv6());
        let listener = listener(&caught);
        let mut addresses = vec!["203.0.113.7:443", "10.1.2.3:1"];
        addresses.extend(has_ipv6().then_some("[2001:db8::7]:443"));
        for address in addresses {
            assert_eq!(meant(&listener, address), address);
        }
        // A kernel that cannot track them has no such file.
        let tracked = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
        assert_eq!(tracked.map_or(0, |count| count.trim().parse().unwrap()), 0);
    });
}

#[test]
fn a_server_can_have_the_port_of_a_connection_that_leaves() {
    where_caught(leave_as_it_is, |caught| {
        let listener = listener(&caught);
        let connected = TcpStream::connect("203.0.113.7:8080").unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let server = TcpListener::bind("0.0.0.0:8080").unwrap();
        drop(server);
        // Who ends it first remembers it for a minute.
        drop(accepted);
        drop(connected);
        TcpListener::bind("0.0.0.0:8080").unwrap();
        let taken = TcpListener::bind(("127.0.0.1", TCP_PORT)).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn without_ipv6_there_is_ipv4_alone() {
    where_caught(switch_ipv6_off, |caught| {
        assert_eq!(caught.family, Family::V4);
        let address = "203.0.113.7:443";
        assert_eq!(meant(&listener(&caught), address), address);
        assert!(TcpStream::connect("[2001:db8::7]:443").is_err());
    });
}

#[test]
fn questions_are_answered_from_the_address_that_was_asked() {
    for prepare in [leave_as_it_is, switch_ipv6_off] {
        where_caught(prepare, |caught| {
            let mut servers = vec!["192.0.0.1:53", "8.8.8.8:53", "127.0.0.53:53"];
            if caught.family == Family::V6 {
                servers.extend(["[2001:db8::53]:53", "[::1]:53"]);
            }
            for server in servers {
                answer(&caught, server);
            }
            let none = inet::receive_from(caught.dns.as_fd(), &mut [0; 4]).unwrap_err();
            assert_eq!(none.kind(), ErrorKind::WouldBlock);
        });
    }
}

fn answer(caught: &Caught, server: &str) {
    let is_v6 = server.starts_with('[');
    let asking = UdpSocket::bind(if is_v6 { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
    asking.send_to(b"question", server).unwrap();
    let mut question = [0; 4];
    let (len, mut sender) = inet::receive_from(caught.dns.as_fd(), &mut question).unwrap();
    assert_eq!(question[..len], *b"ques");
    inet::send_back(caught.dns.as_fd(), b"answer", &mut sender).unwrap();
    let mut answer = [0; 9];
    let (len, from) = asking.recv_from(&mut answer).unwrap();
    assert_eq!(answer[..len], *b"answer");
    assert_eq!(from.to_string(), server);
}

#[test]
fn what_the_kernel_refuses_is_told_with_its_step() {
    where_caught(leave_as_it_is, |_caught| {
        let failure = catch().unwrap_err();
        let step = "give the sandbox an address".to_owned();
        assert_eq!(failure, Failure::new(step, libc::EEXIST));
    });
}
