//! Writes inputs to start from, for each fuzz target into a directory of its name below the one named by the argument.

use std::{env, fs, io, path::Path};

#[path = "../crates/sandbox-agent/tests/protocol/samples.rs"]
mod samples;

#[path = "../crates/sandbox-local/tests/it/images.rs"]
#[allow(dead_code, reason = "layouts are made without it")]
mod images;

use images::{Archive, gzip, saved, sha256, zstd};

const ACCOUNTS: [&str; 3] = [
    "games\0root:x:0:0:root:/root:/bin/bash\ngames:x:5:60:games:/usr/games:/bin/sh\n\0audio:x:29:games\n",
    "1000:29\0user:x:1000:1000::/home/user:\n\0audio:x:29:\n",
    ":audio\0+::::::\n\0audio:*:29:user,games\n",
];

fn main() -> io::Result<()> {
    let corpus = env::args_os().nth(1).ok_or(io::ErrorKind::InvalidInput)?;
    let messages = samples::all().into_iter();
    let messages = messages.map(|(kind, bytes)| [vec![kind], bytes].concat());
    write(&Path::new(&corpus).join("protocol"), messages)?;
    let accounts = ACCOUNTS.iter().map(|text| text.as_bytes().to_vec());
    write(&Path::new(&corpus).join("accounts"), accounts)?;
    let archives = archives();
    let kinds = archives
        .iter()
        .flat_map(|archive| [0, 1].map(|kind| [&[kind], &**archive].concat()));
    let layers = [archives[0].clone(), archives[0].clone()];
    let images = [&[2], &*saved(&[("x", &layers)]).bytes()].concat();
    write(&Path::new(&corpus).join("archives"), kinds.chain([images]))?;
    write(
        &Path::new(&corpus).join("layouts"),
        [layout(&archives[0])].into_iter(),
    )
}

/// An archive of everything, in each compression.
fn archives() -> [Vec<u8>; 3] {
    let archive = Archive::new()
        .directory("usr")
        .file("usr/file", "text")
        .link("lib", "usr")
        .hard_link("lib/other", "usr/file")
        .entry(
            "././@LongLink",
            tar::EntryType::GNULongName,
            "",
            &[b'x'; 120],
        )
        .file("x", "")
        .entry("pax", tar::EntryType::XHeader, "", b"15 path=usr/pax\n")
        .file("x", "")
        .file("usr/.wh.gone", "")
        .file("usr/.wh..wh..opq", "")
        .entry("null", tar::EntryType::Char, "", b"")
        .bytes();
    [gzip(&archive), zstd(&archive), archive]
}

/// An image of one layer, as the target `layouts` reads it.
fn layout(layer: &[u8]) -> Vec<u8> {
    let digest = sha256(&archives()[2]);
    let parts: [String; 3] = [
        r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"@1","size":#1}]}"#.into(),
        r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"@2","size":#2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"@3","size":#3}]}"#.into(),
        format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#),
    ];
    let mut parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
    parts.push(layer);
    parts.join(&b"\xff\xfe\n"[..])
}

fn write(directory: &Path, inputs: impl Iterator<Item = Vec<u8>>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for (number, input) in inputs.enumerate() {
        fs::write(directory.join(format!("seed-{number}")), input)?;
    }
    Ok(())
}
