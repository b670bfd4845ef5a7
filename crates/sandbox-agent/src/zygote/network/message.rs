//! Netlink messages and their answers, as bytes.
//!
//! Numbers are the kernel's own, in the machine's byte order; those of the packet filter are in the network's.

use std::io;

use super::super::failure::{During as _, Failure};
use crate::sys::netlink::Netlink;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Bytes of the header of an attribute.
const ATTRIBUTE: usize = 4;

/// An attribute that holds attributes.
const NESTED: u16 = 1 << 15;

/// Messages for one socket, in their order.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    /// What each of them is to achieve.
    steps: Vec<&'static str>,
}

impl Messages {
    /// Adds a message for `step`, with a fixed part and attributes.
    pub(super) fn add(
        &mut self,
        step: &'static str,
        kind: u16,
        flags: libc::c_int,
        fixed: &[u8],
        attributes: &Attributes,
    ) {
        let start = self.bytes.len();
        let flags = libc::NLM_F_REQUEST | flags;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        // All flags are below this.
        self.bytes.extend_from_slice(&(flags as u16).to_ne_bytes());
        let number = self.steps.len() as u32;
        self.bytes.extend_from_slice(&number.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(fixed);
        pad(&mut self.bytes);
        self.bytes.extend_from_slice(&attributes.0);
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        self.steps.push(step);
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Has the kernel carry all of them out. One of them must ask for an answer (`NLM_F_ACK`), after which nothing can fail
    /// any more.
    pub(super) fn carry_out(&self, socket: &mut Netlink) -> Result<(), Failure> {
        let first = self.steps.first().copied().unwrap_or_default();
        socket.send(&self.bytes).during(first)?;
        loop {
            let answer = socket.receive().during(first)?;
            if let Some((number, result)) = read_answer(&answer) {
                let step = self.steps.get(number as usize).copied();
                return result.during(step.unwrap_or(first));
            }
        }
    }
}

/// Which message an answer is about, and what went wrong. `None`: it answers none.
fn read_answer(bytes: &[u8]) -> Option<(u32, io::Result<()>)> {
    let (header, body) = bytes.split_at_checked(HEADER)?;
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    if libc::c_int::from(kind) != libc::NLMSG_ERROR {
        return None;
    }
    let number = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
    let result = match i32::from_ne_bytes(body.get(..4)?.try_into().ok()?) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    };
    Some((number, result))
}

/// Attributes, one after another.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    #[cfg(test)]
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Adds one.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let len = (ATTRIBUTE + value.len()) as u16;
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(&mut self.0);
        self
    }

    /// Adds a name, with the zero at its end.
    pub(super) fn with_name(self, kind: u16, name: &str) -> Self {
        self.with(kind, &[name.as_bytes(), &[0]].concat())
    }

    /// Adds a number in the network's order.
    pub(super) fn with_number(self, kind: u16, number: u32) -> Self {
        self.with(kind, &number.to_be_bytes())
    }

    /// Adds one that holds others.
    pub(super) fn with_nested(self, kind: u16, inner: &Self) -> Self {
        self.with(kind | NESTED, &inner.0)
    }
}

/// Everything begins at a multiple of four.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn messages_are_laid_out_as_the_kernel_reads_them() {
        let attributes = Attributes::default()
            .with_name(3, "lo")
            .with_nested(4, &Attributes::default().with_number(1, 0x0102));
        let mut messages = Messages::default();
        messages.add("do", 20, libc::NLM_F_ACK, &[7, 8], &attributes);
        messages.add("do more", 21, 0, &[], &Attributes::default());
        let expected = [
            // Length, kind, flags, number, sender.
            &[40, 0, 0, 0, 20, 0, 5, 0][..],
            &[0, 0, 0, 0, 0, 0, 0, 0],
            &[7, 8, 0, 0],
            &[7, 0, 3, 0, b'l', b'o', 0, 0],
            &[12, 0, 4, 0x80, 8, 0, 1, 0, 0, 0, 1, 2],
            &[16, 0, 0, 0, 21, 0, 1, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(messages.bytes, expected.concat());
        assert_eq!(messages.steps, ["do", "do more"]);
    }

    #[test]
    fn answers_tell_which_message_has_failed() {
        let answer = |number: u32, error: i32| {
            let mut bytes = 36_u32.to_ne_bytes().to_vec();
            bytes.extend((libc::NLMSG_ERROR as u16).to_ne_bytes());
            bytes.extend([0; 2]);
            bytes.extend(number.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(error.to_ne_bytes());
            bytes.extend([0; HEADER]);
            bytes
        };
        let (number, result) = read_answer(&answer(3, -libc::ENOENT)).unwrap();
        let error = result.unwrap_err().raw_os_error();
        assert_eq!((number, error), (3, Some(libc::ENOENT)));
        let (number, result) = read_answer(&answer(4, 0)).unwrap();
        assert!(number == 4 && result.is_ok());
        for len in 0..HEADER + 4 {
            assert!(read_answer(&answer(4, 0)[..len]).is_none());
        }
        let mut other = answer(4, 0);
        other[4] += 1;
        assert!(read_answer(&other).is_none());
    }
}
