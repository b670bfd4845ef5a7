//! The rules that give every connection which leaves a sandbox to its listener.
//!
//! Only the first segment of one meets them: all others find the socket that the listener has made of it. So there is
//! nothing to translate, and nothing to remember.

use super::message::{Attributes, Messages};
use super::{Family, OWN_V4, OWN_V6, TCP_PORT};

const NAME: &str = "sandbox";
pub(super) const STEP: &str = "catch the sandbox's connections";

// Of linux/netfilter/nfnetlink.h and nf_tables.h. The first three are kinds of messages.
const NEW_TABLE: u16 = kind(libc::NFT_MSG_NEWTABLE);
const NEW_CHAIN: u16 = kind(libc::NFT_MSG_NEWCHAIN);
const NEW_RULE: u16 = kind(libc::NFT_MSG_NEWRULE);
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
/// Where expressions leave what the next one works on.
const REGISTER: u32 = libc::NFT_REG_1 as u32;
/// Of `mangle`, before the packet is delivered.
const PRIORITY: i32 = -150;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;
/// Byte of the TCP header that holds the flags, and two of these.
const TCP_FLAGS: u32 = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

const fn kind(message: libc::c_int) -> u16 {
    (libc::NFNL_SUBSYS_NFTABLES << 8 | message) as u16
}

/// All rules, to be carried out as one.
pub(super) fn messages(families: &[Family]) -> Messages {
    let mut messages = Messages::default();
    let edge = header(libc::AF_UNSPEC, libc::NFNL_SUBSYS_NFTABLES as u16);
    let inet = header(libc::NFPROTO_INET, 0);
    let (begin, end) = (libc::NFNL_MSG_BATCH_BEGIN, libc::NFNL_MSG_BATCH_END);
    messages.add(STEP, begin as u16, 0, &edge, &Attributes::default());
    let mut add = |kind: u16, flags: libc::c_int, attributes: &Attributes| {
        messages.add(STEP, kind, libc::NLM_F_CREATE | flags, &inet, attributes);
    };
    let table = Attributes::default().with_name(TABLE_NAME, NAME);
    add(NEW_TABLE, 0, &table);
    add(NEW_CHAIN, 0, &chain());
    for (index, family) in families.iter().enumerate() {
        let is_last = index + 1 == families.len();
        let ack = if is_last { libc::NLM_F_ACK } else { 0 };
        add(NEW_RULE, libc::NLM_F_APPEND | ack, &rule(*family));
    }
    messages.add(STEP, end as u16, 0, &edge, &Attributes::default());
    messages
}

/// `struct nfgenmsg`.
fn header(family: libc::c_int, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family as u8, libc::NFNETLINK_V0 as u8, high, low]
}

fn chain() -> Attributes {
    let hook = Attributes::default()
        .with_number(HOOK_NUMBER, libc::NF_INET_PRE_ROUTING as u32)
        .with_number(HOOK_PRIORITY, PRIORITY.cast_unsigned());
    Attributes::default()
        .with_name(CHAIN_TABLE, NAME)
        .with_name(CHAIN_NAME, NAME)
        .with_nested(CHAIN_HOOK, &hook)
        .with_name(CHAIN_TYPE, "filter")
}

/// Takes the first segment of each TCP connection of `family` that is not one of the sandbox with itself.
fn rule(family: Family) -> Attributes {
    let (number, offset, own) = match family {
        Family::V4 => (libc::NFPROTO_IPV4, 16, &OWN_V4.octets()[..]),
        Family::V6 => (libc::NFPROTO_IPV6, 24, &OWN_V6.octets()[..]),
    };
    let mut rule = Rule::default();
    rule.load_meta(libc::NFT_META_L4PROTO);
    rule.require(EQUAL, &[libc::IPPROTO_TCP as u8]);
    rule.load(TRANSPORT_HEADER, TCP_FLAGS, 1);
    rule.mask(SYN | ACK);
    rule.require(EQUAL, &[SYN]);
    rule.load_meta(libc::NFT_META_NFPROTO);
    rule.require(EQUAL, &[number as u8]);
    match family {
        Family::V4 => {
            rule.load(NETWORK_HEADER, offset, 1);
            rule.require(UNEQUAL, &[127]);
        }
        Family::V6 => {
            rule.load(NETWORK_HEADER, offset, 16);
            rule.require(UNEQUAL, &std::net::Ipv6Addr::LOCALHOST.octets());
        }
    }
    rule.load(NETWORK_HEADER, offset, own.len() as u32);
    rule.require(UNEQUAL, own);
    rule.take(number as u32, TCP_PORT);
    Attributes::default()
        .with_name(RULE_TABLE, NAME)
        .with_name(RULE_CHAIN, NAME)
        .with_nested(RULE_EXPRESSIONS, &rule.0)
}

/// Expressions, which work on one register.
#[derive(Debug, Default)]
struct Rule(Attributes);

impl Rule {
    fn add(&mut self, name: &str, data: &Attributes) {
        let expression = Attributes::default()
            .with_name(EXPRESSION_NAME, name)
            .with_nested(EXPRESSION_DATA, data);
        self.0 = std::mem::take(&mut self.0).with_nested(LIST_ELEMENT, &expression);
    }

    /// What is known of the packet besides its bytes.
    fn load_meta(&mut self, key: libc::c_int) {
        let data = Attributes::default()
            .with_number(1, REGISTER)
            .with_number(2, key as u32);
        self.add("meta", &data);
    }

    /// Bytes of the packet.
    fn load(&mut self, base: u32, offset: u32, len: u32) {
        let numbers = [REGISTER, base, offset, len];
        let data = (1..)
            .zip(numbers)
            .fold(Attributes::default(), |data, (kind, number)| {
                data.with_number(kind, number)
            });
        self.add("payload", &data);
    }

    /// Leaves only these bits.
    fn mask(&mut self, bits: u8) {
        let data = Attributes::default()
            .with_number(1, REGISTER)
            .with_number(2, REGISTER)
            .with_number(3, 1)
            .with_nested(4, &value(&[bits]))
            .with_nested(5, &value(&[0]));
        self.add("bitwise", &data);
    }

    /// The packet does not meet the rule unless this holds.
    fn require(&mut self, operator: u32, than: &[u8]) {
        let data = Attributes::default()
            .with_number(1, REGISTER)
            .with_number(2, operator)
            .with_nested(3, &value(than));
        self.add("cmp", &data);
    }

    /// Gives the packet to who listens on `port`, on any address.
    fn take(&mut self, family: u32, port: u16) {
        let data = Attributes::default()
            .with_number(1, REGISTER)
            .with_nested(2, &value(&port.to_be_bytes()));
        self.add("immediate", &data);
        let data = Attributes::default()
            .with_number(1, family)
            .with_number(3, REGISTER);
        self.add("tproxy", &data);
    }
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().with(DATA_VALUE, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kinds, flags and attributes of messages.
    fn split(mut bytes: &[u8]) -> Vec<(u16, u16, &[u8])> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
            let (message, rest) = bytes.split_at(number(0).into());
            all.push((number(4), number(6), &message[20..]));
            bytes = rest;
        }
        all
    }

    #[test]
    fn the_rules_come_in_one_batch_whose_last_one_is_answered() {
        let messages = messages(&[Family::V4, Family::V6]);
        let all = split(messages.bytes());
        let kinds: Vec<_> = all.iter().map(|(kind, flags, _)| (*kind, *flags)).collect();
        // Begin, a table, a chain, two rules, end.
        let expected = [
            (0x10, 0x001),
            (0xa00, 0x401),
            (0xa03, 0x401),
            (0xa06, 0xc01),
            (0xa06, 0xc05),
            (0x11, 0x001),
        ];
        assert_eq!(kinds, expected);
        // Of the packet filter, whose number is in the network's order.
        assert_eq!(messages.bytes()[16..20], [0, 0, 0, 10]);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_chain_that_sees_what_comes_in_before_it_is_delivered() {
        let expected = [
            &b"\x0c\0\x01\0sandbox\0"[..],
            b"\x0c\0\x03\0sandbox\0",
            b"\x14\0\x04\x80\x08\0\x01\0\0\0\0\0\x08\0\x02\0\xff\xff\xff\x6a",
            b"\x0b\0\x07\0filter\0\0",
        ];
        let messages = messages(&[Family::V4]);
        assert_eq!(split(messages.bytes())[2].2, expected.concat());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_rule_is_a_list_of_expressions() {
        let mut rule = Rule::default();
        rule.load(NETWORK_HEADER, 16, 4);
        rule.require(UNEQUAL, &OWN_V4.octets());
        let expected = [
            &b"\x34\0\x01\x80\x0c\0\x01\0payload\0\x24\0\x02\x80"[..],
            b"\x08\0\x01\0\0\0\0\x01\x08\0\x02\0\0\0\0\x01",
            b"\x08\0\x03\0\0\0\0\x10\x08\0\x04\0\0\0\0\x04",
            b"\x2c\0\x01\x80\x08\0\x01\0cmp\0\x20\0\x02\x80",
            b"\x08\0\x01\0\0\0\0\x01\x08\0\x02\0\0\0\0\x01",
            b"\x0c\0\x03\x80\x08\0\x01\0\xc0\0\0\x02",
        ];
        assert_eq!(rule.0, Attributes::of(&expected.concat()));
    }
}
