//! Addresses and routes by which everything that a sandbox sends comes back to itself.

use super::message::{Attributes, Messages};
use super::{Family, LOOPBACK, OWN_V4, OWN_V6};

// Of linux/if_addr.h and linux/rtnetlink.h.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const SCOPE_WORLD: u8 = 0;
const SCOPE_HOST: u8 = 254;
const PROTOCOL: u8 = libc::RTPROT_STATIC;

/// Gives the loopback interface an address of `family`, and makes all others of that local to it.
pub(super) fn messages(family: Family) -> Messages {
    let (number, bits, own) = match family {
        Family::V4 => (libc::AF_INET as u8, 32, &OWN_V4.octets()[..]),
        Family::V6 => (libc::AF_INET6 as u8, 128, &OWN_V6.octets()[..]),
    };
    let mut messages = Messages::default();
    let flags = libc::IFA_F_NODAD as u8;
    let index = LOOPBACK.to_ne_bytes();
    let address = [&[number, bits, flags, SCOPE_WORLD], &index[..]].concat();
    let attributes = Attributes::default()
        .with(IFA_LOCAL, own)
        .with(IFA_ADDRESS, own);
    messages.add(
        "give the sandbox an address",
        libc::RTM_NEWADDR,
        libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        &address,
        &attributes,
    );
    let mut route = vec![number, 0, 0, 0, libc::RT_TABLE_LOCAL, PROTOCOL];
    route.extend([SCOPE_HOST, libc::RTN_LOCAL, 0, 0, 0, 0]);
    let attributes = Attributes::default()
        .with(RTA_OIF, &index)
        .with(RTA_PREFSRC, own);
    messages.add(
        "route all addresses back into the sandbox",
        libc::RTM_NEWROUTE,
        libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ACK,
        &route,
        &attributes,
    );
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn an_address_and_a_route_to_all_others() {
        let address = [
            &[40, 0, 0, 0, 20, 0, 1, 6, 0, 0, 0, 0, 0, 0, 0, 0][..],
            // Family, bits, no check for others who have it, scope, interface.
            &[2, 32, 2, 0, 1, 0, 0, 0],
            &[8, 0, 2, 0, 192, 0, 0, 2],
            &[8, 0, 1, 0, 192, 0, 0, 2],
        ];
        let route = [
            &[44, 0, 0, 0, 24, 0, 5, 6, 1, 0, 0, 0, 0, 0, 0, 0][..],
            // Family, three zeros, table `local`, static, scope `host`, kind `local`, flags.
            &[2, 0, 0, 0, 255, 4, 254, 2, 0, 0, 0, 0],
            &[8, 0, 4, 0, 1, 0, 0, 0],
            &[8, 0, 7, 0, 192, 0, 0, 2],
        ];
        let expected = [address.concat(), route.concat()].concat();
        assert_eq!(messages(Family::V4).bytes(), expected);
        let of_v6 = messages(Family::V6);
        assert_eq!(of_v6.bytes()[16..24], [10, 128, 2, 0, 1, 0, 0, 0]);
        assert_eq!(of_v6.bytes()[28..44], OWN_V6.octets());
    }
}
