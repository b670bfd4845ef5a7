//! A file tree in memory: directories, files and symbolic links, no rights.

use crate::{Bytes, Error, ErrorKind, FileInfo, FileKind, Result, SandboxPath};
use std::{collections::BTreeMap, time::SystemTime};

/// Where relative paths start.
const HOME: &[u8] = b"/home/user";

/// Longest name, in bytes.
const NAME_MAX: usize = 255;

/// Most links on the way to a file, as Linux has it.
const MOST_LINKS: u32 = 40;

/// The tree of one sandbox.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    root: Node,
}

/// A file, a directory or a link.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) mode: u32,
    modified: SystemTime,
    pub(super) content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    File(Bytes),
    Directory(BTreeMap<Vec<u8>, Node>),
    Link(Vec<u8>),
}

/// Names from the root, without `.` and `..`.
type Names = Vec<Vec<u8>>;

impl Node {
    fn directory(mode: u32, now: SystemTime) -> Self {
        Self {
            mode,
            modified: now,
            content: Content::Directory(BTreeMap::new()),
        }
    }

    fn children(&self) -> Option<&BTreeMap<Vec<u8>, Self>> {
        match &self.content {
            Content::Directory(children) => Some(children),
            Content::File(_) | Content::Link(_) => None,
        }
    }

    fn children_mut(&mut self) -> Result<&mut BTreeMap<Vec<u8>, Self>> {
        match &mut self.content {
            Content::Directory(children) => Ok(children),
            Content::File(_) | Content::Link(_) => Err(no_directory()),
        }
    }

    fn link(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Link(target) => Some(target),
            Content::File(_) | Content::Directory(_) => None,
        }
    }

    fn is_directory(&self) -> bool {
        self.children().is_some()
    }

    fn info(&self, path: SandboxPath) -> FileInfo {
        let (kind, size) = match &self.content {
            Content::File(bytes) => (FileKind::File, bytes.len() as u64),
            Content::Directory(_) => (FileKind::Directory, 0),
            Content::Link(target) => (FileKind::Symlink, target.len() as u64),
        };
        let mut info = FileInfo::new(path, kind, size);
        info.mode = Some(self.mode);
        info.modified = Some(self.modified);
        info.target = self.link().map(<[u8]>::to_vec);
        info
    }
}

fn missing() -> Error {
    Error::new(ErrorKind::NotFound, "no such file or directory")
}

fn no_directory() -> Error {
    Error::invalid("a file is where a directory should be")
}

fn is_directory() -> Error {
    Error::invalid("it is a directory")
}

impl Tree {
    /// A tree with a home and a place for what is temporary.
    pub(super) fn new(now: SystemTime) -> Self {
        let root = Node::directory(0o755, now);
        let mut tree = Self { root };
        for names in [vec![&b"home"[..], b"user"], vec![b"tmp"]] {
            let names: Names = names.into_iter().map(<[u8]>::to_vec).collect();
            // There are no files yet that could be in the way.
            let _made = tree.make_directories(&names, now);
        }
        tree
    }

    /// Resolves a path as the kernel would, to what it leads to.
    fn resolve(&self, path: &SandboxPath) -> Result<Names> {
        self.names(path, true)
    }

    /// Resolves a path to the entry itself, which may be a link.
    fn resolve_entry(&self, path: &SandboxPath) -> Result<Names> {
        self.names(path, false)
    }

    fn names(&self, path: &SandboxPath, follow: bool) -> Result<Names> {
        let home = HOME.split(|byte| *byte == b'/').skip(1);
        let home = home.map(<[u8]>::to_vec).collect();
        self.walk_to(home, path.as_bytes(), follow, &mut { MOST_LINKS })
    }

    /// Goes on from `names`. What is left of `..` must be a directory.
    fn walk_to(&self, names: Names, path: &[u8], follow: bool, links: &mut u32) -> Result<Names> {
        let mut names = if path.starts_with(b"/") {
            Names::new()
        } else {
            names
        };
        let mut parts = path.split(|byte| *byte == b'/').peekable();
        while let Some(part) = parts.next() {
            match part {
                b"" | b"." => continue,
                b".." if !self.find(&names)?.is_directory() => return Err(no_directory()),
                b".." => {
                    names.pop();
                    continue;
                }
                _ if part.len() > NAME_MAX => {
                    return Err(Error::invalid("a name must not be longer than 255 bytes"));
                }
                _ => names.push(part.to_vec()),
            }
            let target = self.find(&names).ok().and_then(Node::link);
            if let Some(target) = target.filter(|_| follow || parts.peek().is_some()) {
                let circle = || Error::invalid("links lead in a circle");
                *links = links.checked_sub(1).ok_or_else(circle)?;
                names.pop();
                names = self.walk_to(names, target, true, links)?;
            }
        }
        Ok(names)
    }

    fn is_directory(&self, names: &[Vec<u8>]) -> bool {
        self.find(names).is_ok_and(Node::is_directory)
    }

    fn find(&self, names: &[Vec<u8>]) -> Result<&Node> {
        let mut node = &self.root;
        for name in names {
            let children = node.children().ok_or_else(no_directory)?;
            node = children.get(name).ok_or_else(missing)?;
        }
        Ok(node)
    }

    fn find_mut(&mut self, names: &[Vec<u8>]) -> Result<&mut Node> {
        let mut node = &mut self.root;
        for name in names {
            node = node.children_mut()?.get_mut(name).ok_or_else(missing)?;
        }
        Ok(node)
    }

    fn make_directories(&mut self, names: &[Vec<u8>], now: SystemTime) -> Result<&mut Node> {
        let mut node = &mut self.root;
        for name in names {
            let made = || Node::directory(0o755, now);
            node = node
                .children_mut()?
                .entry(name.clone())
                .or_insert_with(made);
        }
        if node.is_directory() {
            Ok(node)
        } else {
            Err(no_directory())
        }
    }

    pub(super) fn read(&self, path: &SandboxPath) -> Result<Bytes> {
        match &self.find(&self.resolve(path)?)?.content {
            Content::File(bytes) => Ok(bytes.clone()),
            Content::Directory(_) | Content::Link(_) => Err(is_directory()),
        }
    }

    pub(super) fn write(
        &mut self,
        path: &SandboxPath,
        bytes: Bytes,
        mode: Option<u32>,
        now: SystemTime,
    ) -> Result<()> {
        let names = self.resolve(path)?;
        let (name, above) = names.split_last().ok_or_else(is_directory)?;
        let children = self.make_directories(above, now)?.children_mut()?;
        let old = children.get(name);
        if old.is_some_and(Node::is_directory) {
            return Err(is_directory());
        }
        let mode = mode.or(old.map(|old| old.mode)).unwrap_or(0o644);
        let (modified, content) = (now, Content::File(bytes));
        let node = Node {
            mode,
            modified,
            content,
        };
        children.insert(name.clone(), node);
        Ok(())
    }

    pub(super) fn stat(&self, path: &SandboxPath, follow: bool) -> Result<FileInfo> {
        let names = match follow {
            true => self.resolve(path)?,
            false => self.resolve_entry(path)?,
        };
        Ok(self.find(&names)?.info(path.clone()))
    }

    /// What is below a directory, parents first, `depth` levels.
    pub(super) fn list(&self, path: &SandboxPath, depth: u32) -> Result<Vec<FileInfo>> {
        let mut found = Vec::new();
        walk(self.find(&self.resolve(path)?)?, path, depth, &mut found)?;
        Ok(found)
    }

    pub(super) fn mkdir(
        &mut self,
        path: &SandboxPath,
        mode: u32,
        parents: bool,
        now: SystemTime,
    ) -> Result<()> {
        let names = self.resolve_entry(path)?;
        if parents
            && self
                .resolve(path)
                .is_ok_and(|names| self.is_directory(&names))
        {
            return Ok(());
        }
        let (name, above) = names.split_last().ok_or_else(exists)?;
        let above = match parents {
            true => self.make_directories(above, now)?,
            false => self.find_mut(above)?,
        };
        let children = above.children_mut()?;
        insert(children, name, Node::directory(mode, now))
    }

    pub(super) fn symlink(
        &mut self,
        path: &SandboxPath,
        target: &SandboxPath,
        now: SystemTime,
    ) -> Result<()> {
        let names = self.resolve_entry(path)?;
        let (name, above) = names.split_last().ok_or_else(exists)?;
        let node = Node {
            mode: 0o777,
            modified: now,
            content: Content::Link(target.as_bytes().to_vec()),
        };
        insert(self.find_mut(above)?.children_mut()?, name, node)
    }

    pub(super) fn rename(&mut self, from: &SandboxPath, to: &SandboxPath) -> Result<()> {
        let (from, to) = (self.resolve_entry(from)?, self.resolve_entry(to)?);
        let moved = self.find(&from)?.is_directory();
        let (Some((old, old_above)), Some((new, new_above))) = (from.split_last(), to.split_last())
        else {
            return Err(Error::invalid("the root cannot be renamed"));
        };
        if from == to {
            return Ok(());
        }
        if to.starts_with(&from) {
            return Err(Error::invalid("a directory cannot be moved into itself"));
        }
        if !self.find(new_above)?.is_directory() {
            return Err(no_directory());
        }
        match self.find(&to) {
            Ok(there) if there.is_directory() != moved => {
                return Err(Error::invalid("only one of the two is a directory"));
            }
            Ok(there)
                if there
                    .children()
                    .is_some_and(|children| !children.is_empty()) =>
            {
                return Err(not_empty());
            }
            _ => {}
        }
        let node = self.find_mut(old_above)?.children_mut()?.remove(old);
        let node = node.ok_or_else(missing)?;
        let children = self.find_mut(new_above)?.children_mut()?;
        children.insert(new.clone(), node);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &SandboxPath, recursive: bool) -> Result<()> {
        let names = self.resolve_entry(path)?;
        let full = self
            .find(&names)?
            .children()
            .is_some_and(|children| !children.is_empty());
        if full && !recursive {
            return Err(not_empty());
        }
        let root = || Error::invalid("the root cannot be removed");
        let (name, above) = names.split_last().ok_or_else(root)?;
        self.find_mut(above)?.children_mut()?.remove(name);
        Ok(())
    }

    pub(super) fn set_mode(&mut self, path: &SandboxPath, mode: u32) -> Result<()> {
        let names = self.resolve(path)?;
        self.find_mut(&names)?.mode = mode;
        Ok(())
    }
}

fn exists() -> Error {
    Error::new(ErrorKind::AlreadyExists, "something is there already")
}

fn insert(children: &mut BTreeMap<Vec<u8>, Node>, name: &[u8], node: Node) -> Result<()> {
    if children.contains_key(name) {
        return Err(exists());
    }
    children.insert(name.to_vec(), node);
    Ok(())
}

fn not_empty() -> Error {
    Error::new(ErrorKind::InvalidState, "the directory is not empty")
}

fn walk(node: &Node, path: &SandboxPath, depth: u32, found: &mut Vec<FileInfo>) -> Result<()> {
    for (name, child) in node.children().ok_or_else(no_directory)? {
        let path = path.join(name)?;
        found.push(child.info(path.clone()));
        if depth > 1 && child.is_directory() {
            walk(child, &path, depth - 1, found)?;
        }
    }
    Ok(())
}
