//! The program that `sandbox run` runs, as it is found on this machine.

use crate::{
    language::{self, Language},
    transfer::spec::Extra,
};
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

/// Largest program. Data belongs into a file of its own.
const LIMIT: u64 = 64 << 20;

/// Where a program is: in the directory that comes along, if there is one and it is no `-`.
pub(super) fn here(directory: Option<&Path>, file: &Path) -> Result<PathBuf> {
    let Some(directory) = directory.filter(|_| file != Path::new("-")) else {
        return Ok(file.to_owned());
    };
    let is_inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if file.to_str().is_none() || !file.components().all(is_inside) {
        bail!(
            "{} is not written as a path in {}, in UTF-8; with --dir it must be",
            file.display(),
            directory.display()
        );
    }
    Ok(directory.join(file))
}

/// Refuses to put a program that has no name of its own in the place of another one.
pub(super) fn require_room(directory: &Path, name: &str) -> Result<()> {
    let info = fs::metadata(directory);
    let info = info.with_context(|| format!("cannot read {}", directory.display()))?;
    if !info.is_dir() {
        bail!(
            "{} is no directory; add files with --file",
            directory.display()
        );
    }
    if directory.join(name).symlink_metadata().is_ok() {
        bail!(
            "the program would take the place of {name} in {}; save it there under a name of its own",
            directory.display()
        );
    }
    Ok(())
}

pub(super) fn read_program(file: &Path) -> Result<Vec<u8>> {
    let here = || format!("cannot read {}", file.display());
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let opened = File::open(file).with_context(here)?;
        if opened.metadata().with_context(here)?.is_dir() {
            bail!(
                "{} is a directory; name the program in it, and add the directory with --file",
                file.display()
            );
        }
        Box::new(opened)
    };
    let mut contents = Vec::new();
    input
        .take(LIMIT + 1)
        .read_to_end(&mut contents)
        .with_context(here)?;
    if contents.len() as u64 > LIMIT {
        bail!(
            "{} is larger than the 64 MiB that a program may have; add data with --file",
            file.display()
        );
    }
    Ok(contents)
}

/// The language by option, first line, and name, in this order; `None` if the first line names an interpreter that is
/// not known, which then runs the program.
pub(super) fn detect(
    named: Option<&'static Language>,
    contents: &[u8],
    file: Option<&Path>,
) -> Result<Option<&'static Language>> {
    if named.is_none() && language::has_shebang(contents) {
        return Ok(Language::of_shebang(contents));
    }
    let known = named.or_else(|| file.and_then(Language::of_name));
    match (known, file) {
        (Some(language), _) => Ok(Some(language)),
        (None, None) => Ok(Some(language::DEFAULT)),
        (None, Some(file)) => {
            let names: Vec<_> = language::ALL.iter().map(|language| language.name).collect();
            bail!(
                "the language of {} cannot be told from its name or first line; use --lang with one of {}",
                file.display(),
                names.join(", ")
            )
        }
    }
}

/// An extra file that is there, and that is not the program.
pub(super) fn extra(text: &str, program: &str) -> Result<Extra> {
    let extra = Extra::parse(text, Path::exists)?;
    if !extra.source.exists() {
        bail!(
            "--file {}: there is no such file here",
            extra.source.display()
        );
    }
    let parts = |path| {
        let parts = Path::new::<str>(path).components();
        parts.filter(|part| *part != Component::CurDir)
    };
    if parts(&extra.destination).eq(parts(program)) {
        bail!(
            "--file {text} would take the place of the program; write {text}:DEST for another name"
        );
    }
    Ok(extra)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(contents: &str, file: Option<&str>) -> Result<Option<&'static str>> {
        let language = detect(None, contents.as_bytes(), file.map(Path::new))?;
        Ok(language.map(|language| language.name))
    }

    #[test]
    fn the_first_line_counts_more_than_the_name() {
        assert_eq!(detected("", Some("a.py")).unwrap(), Some("python"));
        assert_eq!(detected("#!/bin/sh\n", Some("a.py")).unwrap(), Some("sh"));
        assert_eq!(
            detected("#!/usr/bin/env -S uv run\n", Some("a.py")).unwrap(),
            Some("python")
        );
        assert_eq!(detected("#!/usr/bin/awk -f\n", Some("a")).unwrap(), None);
        assert_eq!(detected("#!/usr/bin/awk -f\n", Some("a.py")).unwrap(), None);
        assert_eq!(detected("", Some("A.PY")).unwrap(), Some("python"));
        assert_eq!(detected("", None).unwrap(), Some("python"));
        let error = detected("", Some("a.exe")).unwrap_err().to_string();
        assert!(
            error.contains("--lang") && error.contains("python"),
            "{error}"
        );
    }
}
