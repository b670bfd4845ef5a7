//! Any OCI layout: it is refused, or its layers are written below one directory and nowhere else.
//!
//! The input is `index.json` and the blobs, with `SEPARATOR` between them. In each, `@N` stands for the digest of the Nth
//! of these, if that comes later, and `#N` for its size, since no fuzzer finds a digest.

#![no_main]

use std::{fs, rc::Rc};

use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};

mod importing;
mod linux;

use importing::{BOUNDS, import, read_twice};

const SEPARATOR: &[u8] = b"\xff\xfe\n";

/// Most parts that are looked at, so that a digit names each.
const MOST: usize = 9;

fuzz_target!(|input: &[u8]| {
    let layout = importing::place().join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("make a directory");
    let mut parts = split(input);
    for number in (0..parts.len()).rev() {
        let (part, rest) = (parts[number].clone(), &parts[number + 1..]);
        let part = fill(&part, number + 1, rest);
        let name = if number == 0 {
            layout.join("index.json")
        } else {
            blobs.join(hex(&part))
        };
        fs::write(name, &part).expect("write a file");
        parts[number] = part;
    }
    let unwatched: Rc<dyn Fn(u64) -> bool> = Rc::new(|_| true);
    if let Ok(image) = import::image::Image::open(&layout, None) {
        read_twice(image.layers.len(), &|layer, sink| {
            let layer = &image.layers[layer];
            image.read_layer(layer, BOUNDS, sink, &unwatched).map(drop)
        });
    }
});

fn split(input: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let mut rest = input;
    while parts.len() < MOST {
        let at = rest
            .windows(SEPARATOR.len())
            .position(|window| window == SEPARATOR);
        parts.push(rest[..at.unwrap_or(rest.len())].to_vec());
        match at {
            Some(at) => rest = &rest[at + SEPARATOR.len()..],
            None => break,
        }
    }
    parts
}

/// Replaces `@N` and `#N` in `part`, where `rest` are the parts from number `first` on.
fn fill(part: &[u8], first: usize, rest: &[Vec<u8>]) -> Vec<u8> {
    let mut filled = Vec::with_capacity(part.len());
    let mut bytes = part.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let next = bytes.peek().filter(|next| next.is_ascii_digit());
        let number = next.map(|next| usize::from(next - b'0'));
        let of = number
            .and_then(|number| number.checked_sub(first))
            .and_then(|at| rest.get(at));
        let text = match (byte, of) {
            (b'@', Some(of)) => format!("sha256:{}", hex(of)),
            (b'#', Some(of)) => of.len().to_string(),
            _ => {
                filled.push(byte);
                continue;
            }
        };
        bytes.next();
        filled.extend_from_slice(text.as_bytes());
    }
    filled
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
