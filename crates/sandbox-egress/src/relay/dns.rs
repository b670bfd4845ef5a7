//! Answers one DNS query of a sandbox: addresses of names that it may reach, and nothing else.

use super::{
    host::{HOST_ADDRESS, HOST_NAME},
    sandbox::Sandbox,
    upstream::{Family, Found},
};
use crate::Name;
use hickory_resolver::proto::{
    op::{Edns, Message, Metadata, OpCode, ResponseCode},
    rr::{
        DNSClass, RData, Record, RecordType,
        rdata::{A, AAAA, opt::EdnsOption},
    },
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest answer by UDP that is sent whatever the asker takes: longer ones are cut into fragments on their way.
const LONGEST_DATAGRAM: u16 = 1232;

/// Longest answer by UDP to who has not said what it takes (RFC 1035, section 4.2.1).
const SHORTEST_LIMIT: u16 = 512;

/// Bytes of a message before its first question.
const HEADER: usize = 12;

/// An answer is kept back from this very asker, in the words of RFC 8914.
const PROHIBITED: [u8; 2] = 18u16.to_be_bytes();

/// The option that carries it.
const EXTENDED_ERROR: u16 = 15;

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Udp,
    Tcp,
}

/// What is said to a query.
struct Reply {
    code: ResponseCode,
    addresses: Vec<IpAddr>,
    ttl: u32,
    is_prohibited: bool,
}

impl Reply {
    fn code(code: ResponseCode) -> Self {
        Self {
            code,
            addresses: Vec::new(),
            ttl: 0,
            is_prohibited: false,
        }
    }

    fn addresses(addresses: Vec<IpAddr>, ttl: u32) -> Self {
        Self {
            addresses,
            ttl,
            ..Self::code(ResponseCode::NoError)
        }
    }

    fn prohibited(code: ResponseCode) -> Self {
        Self {
            is_prohibited: true,
            ..Self::code(code)
        }
    }
}

/// The answer to a query; `None` to what is none.
pub(super) async fn answer(sandbox: &Sandbox, query: &[u8], carrier: Carrier) -> Option<Vec<u8>> {
    let query = match read(query)? {
        Ok(query) => query,
        Err(refusal) => return refusal.to_vec().ok(),
    };
    let reply = reply(sandbox, &query).await;
    write(&query, &reply, carrier)
}

/// The answer to a query for which there is no time; `None` to what is none.
pub(super) fn too_many(query: &[u8]) -> Option<Vec<u8>> {
    match read(query)? {
        Ok(query) => write(&query, &Reply::code(ResponseCode::ServFail), Carrier::Udp),
        Err(refusal) => refusal.to_vec().ok(),
    }
}

/// A query, or what is said to something that should have been one.
fn read(bytes: &[u8]) -> Option<Result<Message, Message>> {
    let is_query = bytes.len() >= HEADER && bytes[2] & 0x80 == 0;
    if !is_query {
        return None;
    }
    let refuse = |op_code, code| {
        let id = u16::from_be_bytes([bytes[0], bytes[1]]);
        Some(Err(Message::error_msg(id, op_code, code)))
    };
    let Ok(query) = Message::from_vec(bytes) else {
        return refuse(OpCode::Query, ResponseCode::FormErr);
    };
    match (query.metadata.op_code, query.queries.len()) {
        (OpCode::Query, 1) => Some(Ok(query)),
        (OpCode::Query, _) => refuse(OpCode::Query, ResponseCode::FormErr),
        (other, _) => refuse(other, ResponseCode::NotImp),
    }
}

async fn reply(sandbox: &Sandbox, query: &Message) -> Reply {
    if query.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Reply::code(ResponseCode::BADVERS);
    }
    let question = &query.queries[0];
    if question.query_class() != DNSClass::IN {
        return Reply::code(ResponseCode::Refused);
    }
    let Ok(name) = Name::new(&question.name().to_ascii()) else {
        return Reply::code(ResponseCode::NXDomain);
    };
    let family = match question.query_type() {
        RecordType::A => Some(Family::V4),
        RecordType::AAAA => Some(Family::V6),
        _ => None,
    };
    let place = place(&name);
    match place {
        Place::This => return Reply::addresses(family.map(loopback).into_iter().collect(), 60),
        Place::Nowhere => return Reply::code(ResponseCode::NXDomain),
        Place::Host | Place::Internet => {}
    }
    // The host's name is asked of nobody.
    if place == Place::Internet && !sandbox.may_resolve(&name) {
        return Reply::prohibited(ResponseCode::NXDomain);
    }
    let Some(family) = family else {
        return Reply::addresses(Vec::new(), 0);
    };
    let found = match (place, family) {
        (Place::Host, Family::V4) => Found::addresses([IpAddr::V4(Ipv4Addr::LOCALHOST)]),
        (Place::Host, Family::V6) => Found::addresses(None),
        _ => sandbox.upstream().addresses(&name, family).await,
    };
    match found {
        Found::NoSuchName => Reply::code(ResponseCode::NXDomain),
        Found::NoAnswer => Reply::code(ResponseCode::ServFail),
        Found::Addresses { addresses, ttl } => {
            let found = addresses.len();
            let mut addresses = sandbox.give(&name, addresses, ttl);
            if place == Place::Host {
                addresses.fill(IpAddr::V4(HOST_ADDRESS));
            }
            let is_prohibited = addresses.is_empty() && found > 0;
            Reply {
                is_prohibited,
                ..Reply::addresses(addresses, ttl)
            }
        }
    }
}

/// Where a name leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// To the sandbox itself.
    This,
    /// To the host, as far as its operator has opened that.
    Host,
    /// To nothing that the internet knows.
    Nowhere,
    Internet,
}

/// Names that no resolver of the internet may be asked for (RFC 6761, 6762, 7686), addresses to be turned into names,
/// and names without a dot, which only mean something in the host's own network.
fn place(name: &Name) -> Place {
    let last = name.as_str().rsplit('.').next().unwrap_or_default();
    match last {
        _ if name.as_str() == HOST_NAME => Place::Host,
        "localhost" => Place::This,
        "local" | "invalid" | "onion" | "arpa" => Place::Nowhere,
        _ if last.len() == name.as_str().len() => Place::Nowhere,
        _ => Place::Internet,
    }
}

fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

/// The bytes of an answer. All addresses are said to be of the name that was asked for.
fn write(query: &Message, reply: &Reply, carrier: Carrier) -> Option<Vec<u8>> {
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    message.metadata = Metadata::response_from_request(&query.metadata);
    message.metadata.recursion_available = true;
    message.metadata.response_code = reply.code;
    let question = query.queries.first()?;
    message.add_query(question.clone());
    let name = question.name();
    message.add_answers(reply.addresses.iter().map(|address| {
        let data = match address {
            IpAddr::V4(address) => RData::A(A(*address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
        };
        Record::from_rdata(name.clone(), reply.ttl, data)
    }));
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LONGEST_DATAGRAM);
        edns.set_rcode_high(reply.code.high());
        if reply.is_prohibited {
            let option = EdnsOption::Unknown(EXTENDED_ERROR, PROHIBITED.to_vec());
            edns.options_mut().insert(option);
        }
        message.set_edns(edns);
    }
    let bytes = message.to_vec().ok()?;
    let limit = match (carrier, &query.edns) {
        (Carrier::Tcp, _) => u16::MAX,
        (Carrier::Udp, None) => SHORTEST_LIMIT,
        (Carrier::Udp, Some(edns)) => edns.max_payload().clamp(SHORTEST_LIMIT, LONGEST_DATAGRAM),
    };
    if bytes.len() > usize::from(limit) {
        message = message.truncate();
        return message.to_vec().ok();
    }
    Some(bytes)
}
