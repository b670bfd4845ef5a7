//! The entries of a tar archive.
//!
//! The crate `tar` finds the blocks; what the extended headers say is read here, since every one of them is bounded and
//! what they could hide is refused: sizes that differ from the header's, and sparse files.

use super::entry::{Entry, Kind, Name, Shown, Sink, check_target, hostile, id, nobody};
use sandbox_core::{Error, Result};
use std::{
    collections::HashSet,
    io::{self, Read},
};
use tar::{Archive, EntryType};

/// Longest extended header, in bytes.
const LONGEST_HEADER: u64 = 1024 * 1024;

/// What names of entries begin with that take others away, in a layer of an image.
const WHITEOUT: &[u8] = b".wh.";
/// Name of the entry that takes away all of the layers below from its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What other names begin with that are for the maker of the layer.
const OWN: &[u8] = b".wh..wh.";

/// What keys of extended headers begin with that are extended attributes.
const ATTRIBUTES: [&[u8]; 3] = [b"SCHILY.xattr.", b"SCHILY.acl.", b"LIBARCHIVE.xattr."];

/// What has come about an archive as a whole.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Entries of owners whom no sandbox can have.
    pub(crate) strangers: u64,
    /// Directories on which something else is mounted.
    pub(crate) mounts: u64,
    /// Entries with extended attributes, which are left out.
    pub(crate) attributes: u64,
    /// Well-known files of the root, by which an archive of an image is told from one of a tree.
    top: HashSet<Vec<u8>>,
}

impl Found {
    /// Whether it is an image inside of an archive.
    pub(crate) fn is_image(&self) -> bool {
        let has = |name: &[u8]| self.top.contains(name);
        (has(b"oci-layout") && has(b"index.json")) || has(b"manifest.json") && has(b"repositories")
    }
}

/// What extended headers say about the entry after them, or about all.
#[derive(Debug, Default, Clone)]
struct Extended {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    modified: Option<u64>,
    attributes: bool,
}

/// Gives all entries of an archive to `sink`. In a layer of an image some names have a meaning of their own.
///
/// # Errors
/// `InvalidArgument` for what is no archive, or one that no honest program has made; else as `sink`.
pub(crate) fn read(archive: impl Read, is_layer: bool, sink: &mut dyn Sink) -> Result<Found> {
    let mut archive = Archive::new(archive);
    let mut found = Found::default();
    let (mut extended, mut global) = (Extended::default(), Extended::default());
    for part in archive.entries().map_err(damaged)?.raw(true) {
        let mut part = part.map_err(damaged)?;
        let kind = part.header().entry_type();
        if is_extension(kind) {
            if kind.is_pax_global_extensions() {
                read_extension(&mut part, kind, &mut global)?;
                global.check_global()?;
            } else {
                read_extension(&mut part, kind, &mut extended)?;
            }
            sink.header()?;
            continue;
        }
        let own = std::mem::take(&mut extended).or(&global);
        let entry = describe(part.header(), own, is_layer, &mut found)?;
        match entry {
            Some(entry) => sink.entry(&entry, &mut part)?,
            None => sink.header()?,
        }
    }
    Ok(found)
}

fn is_extension(kind: EntryType) -> bool {
    kind.is_gnu_longname()
        || kind.is_gnu_longlink()
        || kind.is_pax_local_extensions()
        || kind.is_pax_global_extensions()
}

fn read_extension(part: &mut impl Read, kind: EntryType, extended: &mut Extended) -> Result<()> {
    let mut bytes = Vec::new();
    part.take(LONGEST_HEADER + 1)
        .read_to_end(&mut bytes)
        .map_err(damaged)?;
    if bytes.len() as u64 > LONGEST_HEADER {
        return Err(hostile("an extended header has more than a MiB"));
    }
    if kind.is_gnu_longname() || kind.is_gnu_longlink() {
        let end = bytes.iter().position(|byte| *byte == 0);
        bytes.truncate(end.unwrap_or(bytes.len()));
        let field = if kind.is_gnu_longname() {
            &mut extended.name
        } else {
            &mut extended.target
        };
        *field = Some(bytes);
        return Ok(());
    }
    let mut left = &*bytes;
    while !left.is_empty() {
        let (key, value);
        (key, value, left) =
            split_record(left).ok_or_else(|| hostile("an extended header is damaged"))?;
        extended.set(key, value)?;
    }
    Ok(())
}

/// Key and value of the first record of an extended header, and what follows. Its length, which comes first, is what it
/// ends by: a value may have line feeds.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length = str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

impl Extended {
    /// This, and what `global` says of all entries where this says nothing.
    fn or(self, global: &Self) -> Self {
        Self {
            uid: self.uid.or(global.uid),
            gid: self.gid.or(global.gid),
            modified: self.modified.or(global.modified),
            attributes: self.attributes || global.attributes,
            ..self
        }
    }

    /// Refuses what can be true of one entry only.
    fn check_global(&self) -> Result<()> {
        if self.name.is_some() || self.target.is_some() || self.size.is_some() {
            return Err(hostile(
                "an extended header gives all entries the same name or size",
            ));
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let number = || {
            let text = str::from_utf8(value).ok();
            // Times have a fraction.
            let whole = text.and_then(|text| text.split('.').next());
            let number = whole.and_then(|whole| whole.parse::<u64>().ok());
            number.ok_or_else(|| hostile("an extended header has something else for a number"))
        };
        match key {
            b"path" => self.name = Some(value.to_vec()),
            b"linkpath" => self.target = Some(value.to_vec()),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"size" => self.size = Some(number()?),
            // Before 1970 is as good as then.
            b"mtime" => self.modified = Some(number().unwrap_or(0)),
            key if key.starts_with(b"GNU.sparse") => return Err(sparse()),
            key if ATTRIBUTES.iter().any(|start| key.starts_with(start)) => {
                self.attributes = true;
            }
            _ => {}
        }
        Ok(())
    }
}

fn sparse() -> Error {
    hostile("it has a sparse file in a form that is not read: write the archive without `--sparse`")
}

/// What an entry is by its header and the extended ones before; `None` for what has no meaning.
fn describe(
    header: &tar::Header,
    extended: Extended,
    is_layer: bool,
    found: &mut Found,
) -> Result<Option<Entry>> {
    let text = extended
        .name
        .unwrap_or_else(|| header.path_bytes().into_owned());
    let name = Name::parse(&text)?;
    let wrong = |error: io::Error| damaged(error).with_context("entry", Shown(&text));
    let size = header.entry_size().map_err(wrong)?;
    if extended.size.is_some_and(|extended| extended != size) {
        let message =
            "an entry has two sizes, or is larger than the archive's plain headers can say";
        return Err(hostile(message).with_context("entry", &name));
    }
    let target = || {
        let target = extended.target.clone();
        target.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned())
    };
    let (mut uid, mut gid) = (header.uid().map_err(wrong)?, header.gid().map_err(wrong)?);
    uid = extended.uid.unwrap_or(uid);
    gid = extended.gid.unwrap_or(gid);
    let kind = match kind_of(header.entry_type(), &name, size, &target)? {
        // As it was written before there was a type for it.
        Kind::File { size: 0 } if text.ends_with(b"/") => Kind::Directory,
        kind => kind,
    };
    found.strangers += u64::from(id(uid).is_none() || id(gid).is_none());
    found.attributes += u64::from(extended.attributes);
    if matches!(kind, Kind::File { .. }) && !name.as_bytes().contains(&b'/') && found.top.len() < 64
    {
        found.top.insert(name.as_bytes().to_vec());
    }
    let entry = Entry {
        name,
        kind,
        mode: header.mode().map_err(wrong)?,
        uid: id(uid).unwrap_or_else(nobody),
        gid: id(gid).unwrap_or_else(nobody),
        modified: extended.modified.unwrap_or(header.mtime().unwrap_or(0)),
    };
    if is_layer {
        return as_of_layer(entry);
    }
    Ok(Some(entry))
}

fn kind_of(kind: EntryType, name: &Name, size: u64, target: &dyn Fn() -> Vec<u8>) -> Result<Kind> {
    Ok(match kind {
        EntryType::Regular | EntryType::Continuous => Kind::File { size },
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => {
            let target = target();
            check_target(name, &target)?;
            Kind::Symlink { target }
        }
        EntryType::Link => {
            let to = Name::parse(&target()).map_err(|error| error.with_context("link", name))?;
            Kind::Link { to }
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Special,
        EntryType::GNUSparse => return Err(sparse()),
        other => {
            let message = format!("an entry is of the unknown type {}", other.as_byte());
            return Err(hostile(message).with_context("entry", name));
        }
    })
}

/// Reads the meaning of names that begin with `.wh.`.
fn as_of_layer(mut entry: Entry) -> Result<Option<Entry>> {
    let Some((parent, last)) = entry.name.split() else {
        return Ok(Some(entry));
    };
    if last == OPAQUE {
        entry.kind = Kind::Opaque;
        entry.name = parent;
    } else if last.starts_with(OWN) {
        return Ok(None);
    } else if let Some(removed) = last.strip_prefix(WHITEOUT) {
        let name = match removed {
            // They would name the directory itself, or the one above.
            b"" | b"." | b".." => return Err(hostile("a layer takes a senseless name away")),
            name => parent.join(name)?,
        };
        entry.kind = Kind::Whiteout;
        entry.name = name;
    }
    Ok(Some(entry))
}

/// What cannot be read as an archive.
pub(crate) fn damaged(error: io::Error) -> Error {
    let cause = error.to_string();
    hostile("it is no archive of a known kind, or damaged")
        .with_context("cause", cause)
        .with_source(error)
}

impl Found {
    /// Adds what was found in another layer.
    pub(crate) fn add(&mut self, other: Found) {
        self.strangers += other.strangers;
        self.mounts += other.mounts;
        self.attributes += other.attributes;
        self.top.extend(other.top);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_by_their_length() {
        let two = b"13 path=a\nb\n\n11 uid=123\n";
        let (key, value, rest) = split_record(two).unwrap();
        assert_eq!((key, value), (&b"path"[..], &b"a\nb\n"[..]));
        let (key, value, rest) = split_record(rest).unwrap();
        assert_eq!((key, value, rest), (&b"uid"[..], &b"123"[..], &b""[..]));
        let wrong: [&[u8]; 9] = [
            b"",
            b"\0",
            b"9 path=a",
            b"11 path=a\n",
            b"8 path=a\n",
            b"1 path=a\n",
            b"-9 path=a\n",
            b"7 patha\n",
            b"99999999999999999999999 a=b\n",
        ];
        for bytes in wrong {
            assert_eq!(split_record(bytes), None, "{}", Shown(bytes));
        }
    }
}
