//! The two sides of a copy as they are written: `ID:PATH`, a path of this machine, or `-`; and `--file PATH[:DEST]`.

use anyhow::{Context, Result, bail};
use sandbox::SandboxPath;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// A path of a sandbox, empty for the user's home.
    Sandbox { id: String, path: String },
    /// A path of this machine.
    Here(PathBuf),
    /// Standard input or output.
    Stdio,
}

impl Side {
    /// A colon before any `/` marks a sandbox; `./a:b` is a file of this machine.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            bail!("a path must not be empty");
        }
        if text == "-" {
            return Ok(Self::Stdio);
        }
        match text.split_once(':') {
            Some(("", _)) => bail!("{text:?} names no sandbox, write ID:PATH, or ./{text}"),
            Some((id, path)) if !id.contains('/') && !id.starts_with('.') => Ok(Self::Sandbox {
                id: id.to_owned(),
                path: path.to_owned(),
            }),
            _ => Ok(Self::Here(text.into())),
        }
    }
}

/// A place in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Without `/` at its end, unless it is the root.
    pub(crate) path: SandboxPath,
    /// It was written as a directory: `dir/`.
    pub(crate) directory: bool,
    /// It stands for what is in the directory: `dir/.`, or a directory without a name of its own.
    pub(crate) contents: bool,
}

impl Place {
    /// Reads the part after `ID:`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (path, dot) = match text.strip_suffix("/.") {
            Some(path) => (if path.is_empty() { "/" } else { path }, true),
            None => (text, text.is_empty() || text == "."),
        };
        let directory = dot || path.ends_with('/');
        let path = match path.trim_end_matches('/') {
            "" if path.starts_with('/') => "/",
            "" => ".",
            path => path,
        };
        let path = SandboxPath::new(path)?;
        let contents = dot || path.file_name().is_none();
        Ok(Self {
            path,
            directory,
            contents,
        })
    }
}

/// A file or directory to put next to a program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Extra {
    /// On this machine.
    pub(crate) source: PathBuf,
    /// In the sandbox.
    pub(crate) destination: String,
}

impl Extra {
    /// Reads `PATH[:DEST]`. A colon of a file that exists belongs to its name.
    pub(crate) fn parse(text: &str, exists: impl Fn(&Path) -> bool) -> Result<Self> {
        if text.is_empty() {
            bail!("--file needs a path");
        }
        let (source, destination) = match text.rsplit_once(':') {
            Some((source, destination)) if !exists(Path::new(text)) => (source, destination),
            _ => (text, ""),
        };
        if source.is_empty() {
            bail!("--file {text:?} names no file of this machine, write PATH or PATH:DEST");
        }
        let directory = destination.is_empty() || destination.ends_with('/');
        let destination = if directory {
            match name_of(Path::new(source))?.into_string() {
                Ok(name) => format!("{destination}{name}"),
                Err(name) => bail!("the name {name:?} is not UTF-8, write PATH:DEST"),
            }
        } else {
            destination.to_owned()
        };
        Ok(Self {
            source: source.into(),
            destination,
        })
    }
}

/// The name of a file or directory, of `.` and `..` too.
pub(crate) fn name_of(path: &Path) -> Result<OsString> {
    if let Some(name) = path.file_name() {
        return Ok(name.to_owned());
    }
    let full = path
        .canonicalize()
        .with_context(|| format!("cannot use {}", path.display()))?;
    let name = full.file_name();
    let name =
        name.with_context(|| format!("{} has no name, say where it is to go", path.display()))?;
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn side(id: &str, path: &str) -> Side {
        Side::Sandbox {
            id: id.into(),
            path: path.into(),
        }
    }

    fn place(text: &str) -> (String, bool, bool) {
        let place = Place::parse(text).unwrap();
        (place.path.to_string(), place.directory, place.contents)
    }

    fn extra(text: &str) -> (String, String) {
        let extra = Extra::parse(text, |path| path == Path::new("a:b")).unwrap();
        (extra.source.to_str().unwrap().to_owned(), extra.destination)
    }

    #[test]
    fn a_colon_before_any_slash_marks_a_sandbox() {
        assert_eq!(Side::parse("3f:a/b").unwrap(), side("3f", "a/b"));
        assert_eq!(Side::parse("3f:").unwrap(), side("3f", ""));
        assert_eq!(Side::parse("3f:a:b").unwrap(), side("3f", "a:b"));
        for here in ["a", "./a:b", "/a:b", "a/b:c", "..:x"] {
            assert_eq!(Side::parse(here).unwrap(), Side::Here(here.into()));
        }
        assert_eq!(Side::parse("-").unwrap(), Side::Stdio);
        assert!(Side::parse("").is_err());
        assert!(Side::parse(":a").is_err());
    }

    #[test]
    fn the_end_of_a_place_says_what_is_meant() {
        assert_eq!(place(""), (".".into(), true, true));
        assert_eq!(place("."), (".".into(), true, true));
        assert_eq!(place("a"), ("a".into(), false, false));
        assert_eq!(place("a/"), ("a".into(), true, false));
        assert_eq!(place("a/."), ("a".into(), true, true));
        assert_eq!(place("/"), ("/".into(), true, true));
        assert_eq!(place("/."), ("/".into(), true, true));
        assert_eq!(place("a/.."), ("a/..".into(), false, true));
        assert!(Place::parse("a\0").is_err());
    }

    #[test]
    fn an_extra_file_keeps_its_name_unless_told_otherwise() {
        assert_eq!(
            extra("x/sales.csv"),
            ("x/sales.csv".into(), "sales.csv".into())
        );
        assert_eq!(extra("x:y/z"), ("x".into(), "y/z".into()));
        assert_eq!(extra("x:y/"), ("x".into(), "y/x".into()));
        assert_eq!(extra("x:"), ("x".into(), "x".into()));
        assert_eq!(extra("a:b"), ("a:b".into(), "a:b".into()));
        let here = std::env::current_dir().unwrap();
        assert_eq!(extra(".").1, here.file_name().unwrap().to_str().unwrap());
        assert!(Extra::parse("", |_| false).is_err());
        assert!(Extra::parse(":x", |_| false).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in any::<String>()) {
            let _ = (Side::parse(&text), Place::parse(&text));
            let _ = Extra::parse(&text, |_| false);
        }

        #[test]
        fn a_side_of_a_sandbox_keeps_every_byte(id in "[a-z0-9_-]{1,12}", path in "[^\0]{0,40}") {
            prop_assume!(id != "-");
            prop_assert_eq!(Side::parse(&format!("{id}:{path}")).unwrap(), side(&id, &path));
        }

        #[test]
        fn paths_with_a_leading_dot_or_slash_are_of_this_machine(path in "(\\./|/|\\.\\./)[^\0]{0,40}") {
            prop_assert_eq!(Side::parse(&path).unwrap(), Side::Here(path.into()));
        }

        #[test]
        fn an_extra_file_splits_at_the_last_colon(source in "[^\0]{1,20}", destination in "[^:/\0]{1,20}") {
            let extra = Extra::parse(&format!("{source}:{destination}"), |_| false).unwrap();
            prop_assert_eq!(extra, Extra { source: source.into(), destination });
        }
    }
}
