//! Names in first bytes, however they come.

use super::*;
use proptest::prelude::*;

/// The first bytes of TLS, in records of at most so many bytes.
pub(in crate::relay) fn hello(name: Option<&str>, record: usize) -> Vec<u8> {
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &sized(body)].concat();
    // Without meaning, as browsers send them (RFC 8701).
    let mut extensions = extension(0x1a1a, &[]);
    if let Some(name) = name {
        let entry = [&[0][..], &sized(name.as_bytes())].concat();
        extensions.extend(extension(0, &sized(&entry)));
    }
    extensions.extend(extension(10, &sized(&[0x2a, 0x2a, 0, 29])));
    extensions.extend(extension(13, &sized(&[4, 3, 8, 4])));
    extensions.extend(extension(43, &[4, 0x3a, 0x3a, 3, 4]));
    extensions.extend(extension(0xfafa, &[0]));
    let hello = [
        &[3, 3][..],
        &[7; 32],
        &[32],
        &[9; 32],
        &sized(&[0x4a, 0x4a, 0x13, 1, 0x13, 2]),
        &[1, 0],
        &sized(&extensions),
    ]
    .concat();
    let length = u32::try_from(hello.len()).unwrap().to_be_bytes();
    let handshake = [&[1][..], &length[1..], &hello].concat();
    let frame = |part: &[u8]| [&[22, 3, 1][..], &sized(part)].concat();
    handshake.chunks(record).flat_map(frame).collect()
}

fn sized(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [&length.to_be_bytes()[..], body].concat()
}

/// What is heard if the bytes come in these pieces.
fn heard(bytes: &[u8], pieces: &[usize]) -> Option<Said> {
    let mut ear = Ear::default();
    let mut ends: Vec<_> = pieces.iter().map(|end| end % (bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    ends.into_iter().find_map(|end| ear.hear(&bytes[..end]))
}

fn name(text: &str) -> Heard {
    Heard::Name(Name::new(text).unwrap())
}

#[test]
fn the_name_of_tls_is_heard_however_it_is_cut() {
    for record in [1, 2, 5, 100, 16_000] {
        let bytes = hello(Some("API.example.com"), record);
        for cut in 0..bytes.len() {
            let mut ear = Ear::default();
            assert_eq!(ear.hear(&bytes[..cut]), None, "{record} {cut}");
            let said = ear.hear(&bytes).unwrap();
            assert_eq!(said, name("api.example.com").into(), "{record} {cut}");
        }
    }
}

#[test]
fn tls_without_a_readable_name_hides_it() {
    let long = "a".repeat(300);
    for bad in [
        None,
        Some("1.2.3.4"),
        Some("::1"),
        Some(""),
        Some("a b"),
        Some(long.as_str()),
    ] {
        let said = heard(&hello(bad, 16_000), &[]).unwrap();
        assert_eq!(said.heard, Heard::Hidden, "{bad:?}");
    }
    // Of SSL 2; an alert and a change of cipher before the handshake; what is none.
    let good = hello(Some("a.example"), 16_000);
    let after = |bytes: &[u8]| heard(&[bytes, &good].concat(), &[]).unwrap().heard;
    assert_eq!(after(&[0x80, 46, 1, 3, 1]), Heard::Hidden);
    assert_eq!(after(&[21, 3, 1, 0, 2, 1, 90]), Heard::Hidden);
    assert_eq!(after(&[20, 3, 3, 0, 1, 1]), Heard::Hidden);
    assert_eq!(after(&[22, 3, 3, 0xff, 0xff]), Heard::Hidden);
    assert_eq!(after(&[22, 0, 0, 0, 0]), Heard::Hidden);
    // One that never ends is not listened to for ever.
    let endless: Vec<u8> = [22, 3, 1, 0, 1, 1]
        .into_iter()
        .chain([22, 3, 1, 0, 1, 0].repeat(4000))
        .collect();
    assert_eq!(heard(&endless, &[]).unwrap().heard, Heard::Hidden);
    let begun = [22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
    assert_eq!(heard(&begun, &[]), None);
    assert_eq!(Ear::hear_no_more(&begun).heard, Heard::Hidden);
    let full = [&begun[..], &[0; MOST]].concat();
    assert_eq!(heard(&full, &[]).unwrap().heard, Heard::Hidden);
}

#[test]
fn the_host_of_http_is_heard() {
    let request = b"GET /a HTTP/1.1\r\nX: y\r\nhOsT:  API.example.com:8080 \r\n\r\n";
    let expected = || Said {
        heard: name("api.example.com"),
        is_http: true,
    };
    for cut in 0..request.len() {
        let mut ear = Ear::default();
        assert_eq!(ear.hear(&request[..cut]), None, "{cut}");
        assert_eq!(ear.hear(request), Some(expected()), "{cut}");
    }
    let without = b"GET / HTTP/1.0\r\n\r\n";
    assert_eq!(heard(without, &[]), Some(Heard::Hidden.into()));
    assert_eq!(
        heard(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[]),
        Some(Heard::Hidden.into())
    );
    assert_eq!(heard(b"GET /\r\n", &[]), Some(Heard::Hidden.into()));
    assert_eq!(
        heard(&[b"GET /".as_slice(), &[b'a'; MOST]].concat(), &[])
            .unwrap()
            .heard,
        Heard::Hidden
    );
    assert_eq!(Ear::hear_no_more(b"GET / HT").heard, Heard::Hidden);
}

#[test]
fn other_protocols_say_no_name() {
    for bytes in [
        b"SSH-2.0-OpenSSH_9\r\n".as_slice(),
        b"0032git-upload-pack /p.git\0host=a.example\0",
        b"*1\r\n$4\r\nPING\r\n",
        b"USER anonymous\r\n",
        b"EHLO a.example\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        &[0x10, 0x1c, 0, 4],
        &[0xff, 0xfb, 0x18],
    ] {
        assert_eq!(heard(bytes, &[]), Some(Heard::Nothing.into()), "{bytes:?}");
    }
    assert_eq!(Ear::hear_no_more(b""), Heard::Nothing.into());
}

proptest! {
    #[test]
    fn pieces_change_nothing(record in 1..600_usize, pieces in prop::collection::vec(any::<usize>(), 0..20)) {
        let bytes = hello(Some("a.example"), record);
        prop_assert_eq!(heard(&bytes, &pieces), Some(name("a.example").into()));
        let request = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc";
        let said = heard(request, &pieces).unwrap();
        prop_assert_eq!(said, Said { heard: name("a.example"), is_http: true });
    }

    #[test]
    fn whatever_comes_is_heard_as_something(
        start in prop::sample::select(vec![vec![], vec![22, 3, 1], b"GET ".to_vec(), vec![0x80]]),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        pieces in prop::collection::vec(any::<usize>(), 0..5),
    ) {
        let bytes = [start, bytes].concat();
        let said = heard(&bytes, &pieces).unwrap_or_else(|| Ear::hear_no_more(&bytes));
        // Only the bytes themselves can say a name.
        if let Heard::Name(name) = said.heard {
            let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
            prop_assert!(text.contains(name.as_str()));
        }
    }
}
