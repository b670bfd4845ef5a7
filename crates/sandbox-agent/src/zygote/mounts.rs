//! What is mounted in a sandbox, as the kernel lists it, and what of it has to move when its overlays are replaced.

use std::ffi::CString;

use super::failure::Failure;

/// A line of `/proc/PID/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    id: u32,
    parent: u32,
    /// Where it is, from the root of the process.
    place: Vec<u8>,
    kind: Vec<u8>,
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        let place = unescape(fields.nth(2)?)?;
        // Any number of fields that are not always there.
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?.to_vec();
        Some(Self {
            id,
            parent,
            place,
            kind,
        })
    }
}

/// Undoes how the kernel writes spaces and the like: a backslash and three octal digits.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            plain.push(*first);
            continue;
        }
        let (digits, after) = after.split_at_checked(3)?;
        let digits = std::str::from_utf8(digits).ok()?;
        plain.push(u8::from_str_radix(digits, 8).ok()?);
        rest = after;
    }
    Some(plain)
}

/// The places, relative to the root, of all that is mounted on the overlays at `targets` and is none of these.
///
/// # Errors
/// If one of these is no overlay, or more than one is mounted there.
pub(crate) fn on_overlays(list: &[u8], targets: &[&[u8]]) -> Result<Vec<CString>, Failure> {
    let lines = list.split(|byte| *byte == b'\n');
    let mounts: Option<Vec<Mount>> = lines
        .filter(|line| !line.is_empty())
        .map(Mount::parse)
        .collect();
    let mounts = mounts.ok_or_else(|| Failure::invalid("read the list of mounts"))?;
    let mut ids = Vec::new();
    for target in targets {
        let mut there = mounts.iter().filter(|mount| mount.place == *target);
        match (there.next(), there.next()) {
            (Some(only), None) if only.kind == b"overlay" => ids.push(only.id),
            _ => {
                let target = String::from_utf8_lossy(target);
                return Err(Failure::invalid(format!("find the overlay of {target}")));
            }
        }
    }
    let on_one = |mount: &&Mount| ids.contains(&mount.parent) && !ids.contains(&mount.id);
    let places = mounts.iter().filter(on_one).map(|mount| {
        let place = mount.place.strip_prefix(b"/").unwrap_or(&mount.place);
        CString::new(place)
    });
    let places: Result<Vec<_>, _> = places.collect();
    places.map_err(|_| Failure::invalid("read the list of mounts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"\
90 80 0:50 / / rw,nodev - overlay generation-0 rw,lowerdir=/l/0
91 90 0:51 / /usr rw,nodev - overlay generation-0 rw
92 90 0:52 / /proc rw,nosuid shared:5 master:1 - proc none rw
93 92 0:53 /file /proc/kcore ro - tmpfs none ro
94 91 0:54 /a /usr/my\\040data\\134x rw - ext4 /dev/sda rw
95 94 0:54 /b /usr/my\\040data\\134x/y rw - ext4 /dev/sda rw
";

    #[test]
    fn what_lies_on_overlays_moves_and_what_lies_on_that_moves_with_it() {
        let places = on_overlays(LIST, &[b"/", b"/usr"]).unwrap();
        assert_eq!(places, [c"proc".to_owned(), c"usr/my data\\x".to_owned()]);
    }

    #[test]
    fn a_place_without_exactly_one_overlay_is_refused() {
        for targets in [&[b"/opt".as_slice()][..], &[b"/".as_slice(), b"/proc"][..]] {
            assert!(on_overlays(LIST, targets).is_err());
        }
        let twice = [LIST, b"96 91 0:55 / /usr rw - overlay x rw\n"].concat();
        assert!(on_overlays(&twice, &[b"/", b"/usr"]).is_err());
        for bad in [
            b"1 2 3".as_slice(),
            b"x 1 0:1 / / rw - overlay",
            b"1 1 0:1 / /\\9 rw - overlay x",
        ] {
            assert!(on_overlays(bad, &[b"/"]).is_err());
        }
    }
}
