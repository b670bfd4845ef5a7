//! Rules for every file, whatever its language, and the search for files.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result};

use super::Problem;

/// Top folders that hold checkouts on somebody's machine and mean nothing on another one.
const MACHINE_FOLDERS: [&str; 4] = ["work", "farm", "Users", "workspaces"];

/// All files below `root` but those of git and of builds, sorted, as paths below `root`.
pub(super) fn find(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        // Cargo marks its target directories, wherever they lie.
        if folder.join("CACHEDIR.TAG").exists() {
            continue;
        }
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            // A folder in a clone, a file in a worktree.
            if entry.file_name() == ".git" {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let path = path.strip_prefix(root)?;
                files.push(path.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The file's text; `None` if it holds something else.
pub(super) fn read(root: &Path, path: &str) -> Result<Option<String>> {
    match fs::read_to_string(root.join(path)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error).with_context(|| path.to_owned()),
    }
}

/// Checks what can be seen without reading.
pub(super) fn check_name(path: &str) -> Option<Problem> {
    let message = "a snapshot waits for its review: accept it (`cargo insta review`) or remove it";
    path.ends_with(".snap.new")
        .then(|| Problem::new(path, message))
}

/// Checks a text file line by line.
pub(super) fn check_text(path: &str, text: &str) -> Vec<Problem> {
    let lines = (1..).zip(text.lines());
    let found = lines.filter_map(|(number, line)| Some((number, machine_path(line)?)));
    found
        .map(|(number, folder)| {
            let message = format!(
                "/{folder}/ is a path of one machine; use a relative one, or `/srv` in an example"
            );
            Problem::new(path, message).at(number)
        })
        .collect()
}

/// The folder of [`MACHINE_FOLDERS`] in which an absolute path of this line starts.
fn machine_path(line: &str) -> Option<&'static str> {
    let goes_on = |c: char| c.is_alphanumeric() || "_./-".contains(c);
    MACHINE_FOLDERS.into_iter().find(|folder| {
        let start = format!("/{folder}/");
        line.match_indices(&start)
            .any(|(at, _)| !line[..at].chars().next_back().is_some_and(goes_on))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_one_machine_are_found() {
        for folder in MACHINE_FOLDERS {
            assert_eq!(machine_path(&format!("/{folder}/main")), Some(folder));
            assert_eq!(machine_path(&format!("cd \"/{folder}/x\"")), Some(folder));
            assert_eq!(
                machine_path(&format!("src/{folder}/x, ../{folder}/y, {folder}/")),
                None
            );
            assert_eq!(machine_path(&format!("/{folder}ing/x and /{folder}")), None);
        }
    }

    #[test]
    fn pending_snapshots_are_found() {
        assert!(check_name("crates/a/src/snapshots/b.snap.new").is_some());
        assert!(check_name("crates/a/src/snapshots/b.snap").is_none());
    }
}
