//! One entry of a file tree that is being imported, and the name it may have.

use sandbox_core::{Error, ErrorKind, Result};
use std::{fmt, io::Read};

/// Longest path, in bytes: what Linux takes, without its last zero.
const LONGEST_PATH: usize = 4095;
/// Longest name of one entry, in bytes.
const LONGEST_NAME: usize = 255;
/// Most directories in each other.
const DEEPEST: usize = 256;
/// Longest target of a symbolic link, in bytes.
const LONGEST_TARGET: usize = 4095;

/// Ids beyond are not had by any sandbox.
const LAST_ID: u64 = 0xffff;
/// Whom files belong to whose owner no sandbox can have.
const NOBODY: u32 = 65534;

/// A path below the root of a tree, without `.`, `..` or a slash at either end. The root's own is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Name(Vec<u8>);

impl Name {
    /// Reads the name of an entry as archives write it.
    ///
    /// # Errors
    /// `InvalidArgument` for what could lead out of the tree or cannot be a name.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        let refuse = |why: &str| Err(hostile(why).with_context("entry", Shown(text)));
        let is_root = text.iter().all(|byte| matches!(byte, b'/' | b'.'));
        if text.first() == Some(&b'/') && !is_root {
            return refuse("an entry has an absolute name");
        }
        if text.contains(&0) {
            return refuse("a zero byte is in the name of an entry");
        }
        let mut name = Vec::with_capacity(text.len().min(LONGEST_PATH));
        let mut depth = 0;
        for part in text.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return refuse("an entry has `..` in its name"),
                part if part.len() > LONGEST_NAME => {
                    return refuse("an entry has a name of more than 255 bytes");
                }
                _ => {}
            }
            if depth > 0 {
                name.push(b'/');
            }
            name.extend_from_slice(part);
            depth += 1;
        }
        if text.is_empty() {
            return refuse("an entry has no name");
        }
        if name.len() > LONGEST_PATH || depth > DEEPEST {
            return refuse("the name of an entry is too long");
        }
        Ok(Self(name))
    }

    /// The entry `name` in this directory.
    pub(crate) fn join(&self, name: &[u8]) -> Result<Self> {
        let mut text = self.0.clone();
        if !text.is_empty() {
            text.push(b'/');
        }
        text.extend_from_slice(name);
        Self::parse(&text)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directory that it is in and its name there; `None` for the root.
    pub(crate) fn split(&self) -> Option<(Name, &[u8])> {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => Some((Self(self.0[..at].to_vec()), &self.0[at + 1..])),
            None => (!self.is_root()).then(|| (Self::default(), &*self.0)),
        }
    }

    /// Each of its parts.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "/{}", Shown(&self.0))
    }
}

/// Bytes from an archive, harmless to print and not too long.
#[derive(Debug)]
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = &self.0[..self.0.len().min(200)];
        write!(formatter, "{}", most.escape_ascii())?;
        if most.len() < self.0.len() {
            formatter.write_str("...")?;
        }
        Ok(())
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    /// Its contents come along.
    File {
        size: u64,
    },
    Symlink {
        target: Vec<u8>,
    },
    /// Another name of a file that came before.
    Link {
        to: Name,
    },
    /// A device, pipe or socket: said, and left out.
    Special,
    /// Takes an entry of the layers below away.
    Whiteout,
    /// Takes all away that the layers below have in this directory.
    Opaque,
}

/// One entry. Owners are ids inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Name,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) modified: u64,
}

impl Entry {
    /// Takes away from the permissions what would make a program run as somebody else: no sandbox honours it.
    pub(crate) fn permissions(&self) -> u32 {
        match self.kind {
            Kind::Directory => self.mode & 0o3777,
            _ => self.mode & 0o777,
        }
    }
}

/// Receives the entries of a tree, in their order.
pub(crate) trait Sink {
    /// Takes one entry, with its contents if it is a file.
    fn entry(&mut self, entry: &Entry, contents: &mut dyn Read) -> Result<()>;

    /// Takes note of a part of an archive that only describes others.
    fn header(&mut self) -> Result<()>;
}

/// The id as a sandbox may have it; `None` if none can.
pub(crate) fn id(id: u64) -> Option<u32> {
    (id <= LAST_ID).then_some(id as u32)
}

/// Who has what belongs to an owner whom no sandbox can have.
pub(crate) fn nobody() -> u32 {
    NOBODY
}

/// The target of a symbolic link, which may lead anywhere: it is never followed out of the tree.
pub(crate) fn check_target(name: &Name, target: &[u8]) -> Result<()> {
    if target.is_empty() || target.len() > LONGEST_TARGET || target.contains(&0) {
        let error = hostile("a symbolic link has a target that cannot be one");
        return Err(error.with_context("entry", name));
    }
    Ok(())
}

/// What no honest archive holds.
pub(crate) fn hostile(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_stay_below_the_root() {
        let parse = |text: &str| Name::parse(text.as_bytes());
        for (text, name) in [
            ("./", ""),
            (".", ""),
            ("/", ""),
            ("a", "a"),
            ("./a//b/./c/", "a/b/c"),
        ] {
            assert_eq!(parse(text).unwrap().as_bytes(), name.as_bytes(), "{text}");
        }
        let long = ["x".repeat(256), "a/".repeat(257), "xxx/".repeat(1100)];
        let wrong = ["", "..", "a/..", "../a", "a/../b", "/etc", "//a", "a\0b"];
        for text in wrong.into_iter().chain(long.iter().map(String::as_str)) {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn a_name_is_split_where_it_was_joined() {
        let name = Name::parse(b"a/b").unwrap().join(b"c").unwrap();
        let (parent, last) = name.split().unwrap();
        assert_eq!(
            (parent.as_bytes(), last),
            (b"a/b".as_slice(), b"c".as_slice())
        );
        assert!(Name::default().split().is_none());
        assert!(name.join(b"..").is_err());
        assert_eq!(Name::default().join(b"x").unwrap().to_string(), "/x");
    }

    proptest! {
        #[test]
        fn no_name_has_a_part_that_leads_up(text: Vec<u8>) {
            if let Ok(name) = Name::parse(&text) {
                prop_assert!(name.parts().all(|part| !matches!(part, b"" | b"." | b"..")));
                prop_assert_eq!(Name::parse(&[b"./", name.as_bytes()].concat()).unwrap(), name);
            }
        }
    }
}
