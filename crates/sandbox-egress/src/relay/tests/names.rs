//! What a sandbox is told when it asks for names.

use super::{nameserver::Known, streams::wait_until, *};
use hickory_resolver::proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name as DnsName, RData, RecordType, rdata::opt::EdnsOption},
};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::Write;

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(DnsName::from_ascii(name).unwrap(), kind));
    message
}

fn addresses(answer: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    answer
        .answers
        .iter()
        .filter_map(|record| address(&record.data))
        .collect()
}

impl Captured {
    fn send(&self, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let to = match self.udp.ip() {
            ip if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], self.udp.port())),
            _ => self.udp,
        };
        socket.send_to(query, to).unwrap();
        let mut bytes = [0; 4096];
        let (length, from) = socket.recv_from(&mut bytes).unwrap();
        assert_eq!(from, to);
        bytes[..length].to_vec()
    }

    fn ask(&self, query: &Message) -> Message {
        let answer = self.send(&query.to_vec().unwrap());
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, query.metadata.id);
        assert_eq!(answer.metadata.message_type, MessageType::Response);
        answer
    }

    fn resolve(&self, name: &str, kind: RecordType) -> (ResponseCode, Vec<IpAddr>) {
        let answer = self.ask(&question(name, kind));
        assert_eq!(answer.queries, question(name, kind).queries);
        for record in &answer.answers {
            assert_eq!(&record.name, answer.queries[0].name());
        }
        (answer.metadata.response_code, addresses(&answer))
    }

    /// Asks for the addresses of IPv4, which is what makes them reachable by that name.
    pub(super) fn learn(&self, name: &str) -> Vec<IpAddr> {
        self.resolve(name, RecordType::A).1
    }

    fn names(&self, address: &str) -> Vec<Name> {
        self.served().sandbox.names(ip(address))
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn allowed_names_have_their_addresses_and_these_are_remembered() {
    let sandbox = Captured::new(only(&["*.example"]));
    sandbox
        .nameserver
        .know_addresses("a.example", &["127.0.0.7", "127.0.0.8"]);
    let (code, mut found) = sandbox.resolve("A.Example.", RecordType::A);
    found.sort();
    assert_eq!(code, ResponseCode::NoError);
    assert_eq!(found, [ip("127.0.0.7"), ip("127.0.0.8")]);
    assert_eq!(
        sandbox.names("127.0.0.8"),
        [Name::new("a.example").unwrap()]
    );
    assert_eq!(sandbox.names("127.0.0.9"), []);
    let missing = sandbox.resolve("b.example.", RecordType::A);
    assert_eq!(missing, (ResponseCode::NXDomain, Vec::new()));
}

#[test]
fn other_names_do_not_exist_and_are_not_asked_for() {
    let sandbox = Captured::new(only(&["a.example"]));
    sandbox
        .nameserver
        .know_addresses("b.example", &["127.0.0.7"]);
    let mut query = question("b.example.", RecordType::A);
    query.set_edns(Edns::new());
    let answer = sandbox.ask(&query);
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    let edns = answer.edns.unwrap();
    let why = EdnsOption::Unknown(15, vec![0, 18]);
    assert_eq!(edns.option(15.into()), Some(&why));
    let event = sandbox.log.wait(NetworkEventKind::NameDenied);
    assert_eq!(event.name.as_deref(), Some("b.example"));
    assert_eq!(event.port, 53);
    assert!(
        event.reason.contains("allow it with a rule for b.example"),
        "{event:?}"
    );
    assert_eq!(sandbox.nameserver.asked(), Vec::<String>::new());
}

#[test]
fn an_address_that_the_floor_closes_is_kept_back_whatever_leads_to_it() {
    let floor = Floor::new().open("127.0.0.7/32".parse().unwrap(), None);
    let sandbox = Captured::with(public(), floor, Limits::default());
    let names = &sandbox.nameserver;
    names.know_addresses(
        "rebound.example",
        &["10.0.0.1", "127.0.0.7", "169.254.169.254"],
    );
    names.know_addresses("inner.example", &["192.168.1.1"]);
    names.know("alias.example", Known::Alias("inner.example"));
    names.know_addresses("mapped.example", &["::ffff:10.0.0.1", "fd00::1", "::1"]);
    let found = sandbox.resolve("rebound.example.", RecordType::A);
    assert_eq!(found, (ResponseCode::NoError, vec![ip("127.0.0.7")]));
    for (name, kind) in [
        ("inner.example.", RecordType::A),
        ("alias.example.", RecordType::A),
        ("mapped.example.", RecordType::AAAA),
    ] {
        let found = sandbox.resolve(name, kind);
        assert_eq!(found, (ResponseCode::NoError, Vec::new()), "{name}");
    }
    assert_eq!(sandbox.names("192.168.1.1"), []);
    assert_eq!(sandbox.names("10.0.0.1"), []);
    let event = sandbox.log.wait(NetworkEventKind::NameDenied);
    assert_eq!(event.address, Some(ip("192.168.1.1")));
    assert!(event.reason.contains("a private address"), "{event:?}");
}

#[test]
fn an_alias_is_flattened_onto_the_name_that_was_asked_for() {
    let sandbox = Captured::new(only(&["alias.example"]));
    sandbox
        .nameserver
        .know("alias.example", Known::Alias("other.example"));
    sandbox
        .nameserver
        .know("other.example", Known::Alias("third.example"));
    sandbox
        .nameserver
        .know_addresses("third.example", &["127.0.0.7"]);
    let found = sandbox.resolve("alias.example.", RecordType::A);
    assert_eq!(found, (ResponseCode::NoError, vec![ip("127.0.0.7")]));
    assert_eq!(
        sandbox.names("127.0.0.7"),
        [Name::new("alias.example").unwrap()]
    );
}

#[test]
fn addresses_of_ipv6_are_given_where_there_is_a_route_to_them() {
    let floor = open_floor().open("2001:db8::/32".parse().unwrap(), None);
    let sandbox = Captured::with(public(), floor, Limits::default());
    sandbox
        .nameserver
        .know_addresses("six.example", &["::1", "2001:db8::7"]);
    let (code, found) = sandbox.resolve("six.example.", RecordType::AAAA);
    let expected = host::routed(vec!["::1".parse().unwrap(), "2001:db8::7".parse().unwrap()]);
    let expected: Vec<_> = expected.into_iter().map(IpAddr::V6).collect();
    assert_eq!((code, found), (ResponseCode::NoError, expected));
    let four = sandbox.resolve("six.example.", RecordType::A);
    assert_eq!(four, (ResponseCode::NoError, Vec::new()));
}

#[test]
fn other_kinds_of_records_are_not_there() {
    let sandbox = Captured::new(public());
    sandbox
        .nameserver
        .know_addresses("a.example", &["127.0.0.7"]);
    for kind in [
        RecordType::HTTPS,
        RecordType::SVCB,
        RecordType::TXT,
        RecordType::MX,
        RecordType::ANY,
    ] {
        let found = sandbox.resolve("a.example.", kind);
        assert_eq!(found, (ResponseCode::NoError, Vec::new()), "{kind}");
    }
    let found = sandbox.resolve("7.0.0.127.in-addr.arpa.", RecordType::PTR);
    assert_eq!(found, (ResponseCode::NXDomain, Vec::new()));
    assert_eq!(sandbox.nameserver.asked(), Vec::<String>::new());
}

#[test]
fn names_of_the_own_host_and_network_are_not_asked_for() {
    let sandbox = Captured::new(public());
    let found = sandbox.resolve("localhost.", RecordType::A);
    assert_eq!(found, (ResponseCode::NoError, vec![ip("127.0.0.1")]));
    let found = sandbox.resolve("a.localhost.", RecordType::AAAA);
    assert_eq!(found, (ResponseCode::NoError, vec![ip("::1")]));
    for name in ["intranet.", "printer.local.", ".", "1.2.3.4.", "*.example."] {
        let found = sandbox.resolve(name, RecordType::A);
        assert_eq!(found, (ResponseCode::NXDomain, Vec::new()), "{name}");
    }
    assert_eq!(sandbox.nameserver.asked(), Vec::<String>::new());
}

#[test]
fn what_is_no_query_gets_an_error_or_nothing() {
    let sandbox = Captured::new(public());
    let code = |bytes: &[u8]| {
        let answer = Message::from_vec(&sandbox.send(bytes)).unwrap();
        (answer.metadata.id, answer.metadata.response_code)
    };
    let garbage = [&[1, 2, 1, 0], [0xff; 30].as_slice()].concat();
    assert_eq!(code(&garbage), (0x0102, ResponseCode::FormErr));
    let mut two = question("a.example.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(code(&two.to_vec().unwrap()).1, ResponseCode::FormErr);
    let mut update = question("a.example.", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&update.to_vec().unwrap()).1, ResponseCode::NotImp);
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos.to_vec().unwrap()).1, ResponseCode::Refused);
    let mut newer = question("a.example.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    // BADVERS, which has the number of another error.
    assert_eq!(u16::from(code(&newer.to_vec().unwrap()).1), 16);

    // Answers and scraps are dropped: the next answer is that to the question after them.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut response = question("a.example.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    for bytes in [&[][..], &[0; 11], &response.to_vec().unwrap()] {
        socket.send_to(bytes, sandbox.udp).unwrap();
    }
    let mut last = question("localhost.", RecordType::A);
    last.metadata.id = 99;
    socket
        .send_to(&last.to_vec().unwrap(), sandbox.udp)
        .unwrap();
    let mut bytes = [0; 512];
    let length = socket.recv(&mut bytes).unwrap();
    assert_eq!(Message::from_vec(&bytes[..length]).unwrap().metadata.id, 99);
}

#[test]
fn what_is_too_long_for_a_datagram_is_whole_by_tcp() {
    let sandbox = Captured::new(public());
    let many: Vec<_> = (1..=60).map(|number| format!("127.0.1.{number}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    sandbox.nameserver.know_addresses("many.example", &many);
    let mut query = question("many.example.", RecordType::A);
    let answer = sandbox.ask(&query);
    assert!(answer.metadata.truncation);
    assert_eq!(answer.answers.len(), 0);

    let mut stream = sandbox.connect("127.0.0.1");
    // Two at once, in pieces.
    let bytes = query.to_vec().unwrap();
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let twice = [&length[..], &bytes, &length, &bytes].concat();
    let (first, rest) = twice.split_at(7);
    stream.write_all(first).unwrap();
    stream.write_all(rest).unwrap();
    for _ in 0..2 {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer).unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert!(!answer.metadata.truncation);
        assert_eq!(answer.answers.len(), 60);
    }

    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    query.set_edns(edns);
    let answer = sandbox.ask(&query);
    assert_eq!(
        (answer.metadata.truncation, answer.answers.len()),
        (false, 60)
    );
}

#[test]
fn a_new_policy_holds_for_the_next_name() {
    let sandbox = Captured::new(only(&["a.example"]));
    sandbox
        .nameserver
        .know_addresses("b.example", &["127.0.0.7"]);
    assert_eq!(
        sandbox.resolve("b.example.", RecordType::A).0,
        ResponseCode::NXDomain
    );
    sandbox
        .served()
        .set_policy(only(&["b.example"]), Existing::Keep);
    let found = sandbox.resolve("b.example.", RecordType::A);
    assert_eq!(found, (ResponseCode::NoError, vec![ip("127.0.0.7")]));
}

#[test]
fn what_nobody_answers_holds_up_only_itself() {
    let limits = Limits::default().queries(2);
    let sandbox = Captured::with(public(), open_floor(), limits);
    sandbox.nameserver.know("silent.example", Known::Silence);
    sandbox
        .nameserver
        .know_addresses("a.example", &["127.0.0.7"]);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = |id: u16, name: &str| {
        let mut query = question(name, RecordType::A);
        query.metadata.id = id;
        socket
            .send_to(&query.to_vec().unwrap(), sandbox.udp)
            .unwrap();
    };
    let answer = || {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        let answer = Message::from_vec(&bytes[..length]).unwrap();
        (answer.metadata.id, answer.metadata.response_code)
    };
    ask(1, "silent.example.");
    ask(2, "a.example.");
    assert_eq!(answer(), (2, ResponseCode::NoError));
    // Two wait now, and the third is told at once that there are too many.
    ask(3, "silent.example.");
    ask(4, "a.example.");
    assert_eq!(answer(), (4, ResponseCode::ServFail));
    let mut late = [answer(), answer()];
    late.sort_by_key(|(id, _)| *id);
    assert_eq!(
        late,
        [(1, ResponseCode::ServFail), (3, ResponseCode::ServFail)]
    );
}

#[test]
fn queries_count_however_they_come() {
    let sandbox = Captured::with(public(), open_floor(), Limits::default().queries(1));
    sandbox.nameserver.know("silent.example", Known::Silence);
    sandbox
        .nameserver
        .know_addresses("a.example", &["127.0.0.7"]);
    let mut stream = sandbox.connect("127.0.0.1");
    let query = question("silent.example.", RecordType::A).to_vec().unwrap();
    let length = u16::try_from(query.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, &query[..]].concat()).unwrap();
    let asked = || sandbox.nameserver.asked();
    wait_until("the question", || !asked().is_empty());
    let late = sandbox.resolve("a.example.", RecordType::A);
    assert_eq!(late, (ResponseCode::ServFail, Vec::new()));
    read(&mut stream, 2);
    let found = sandbox.resolve("a.example.", RecordType::A);
    assert_eq!(found, (ResponseCode::NoError, vec![ip("127.0.0.7")]));
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let four = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    setsockopt(&four, sockopt::Ipv4PacketInfo, &true).unwrap();
    let mut sockets = vec![(four, "127.0.0.1")];
    if let Ok(six) = UdpSocket::bind("[::]:0") {
        setsockopt(&six, sockopt::Ipv6RecvPacketInfo, &true).unwrap();
        sockets.push((six, "::1"));
    }
    for (udp, other) in sockets {
        let port = udp.local_addr().unwrap().port();
        let sandbox = Captured::on(public(), open_floor(), Limits::default(), udp);
        let query = question("localhost.", RecordType::A).to_vec().unwrap();
        for address in ["127.0.0.2", "127.1.2.3", other] {
            let address = ip(address);
            let any = if address.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(&query, (address, port)).unwrap();
            let (_, from) = socket.recv_from(&mut [0; 512]).unwrap();
            assert_eq!(from, SocketAddr::new(address, port));
        }
        drop(sandbox);
    }
}
