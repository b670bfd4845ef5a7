//! Finding the program of a command and becoming it, as execvp(3) and a shell do it.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::sys::program::{Strings, execute};

/// What a shell's exit code says: there is no such program.
pub(super) const NOT_FOUND: i32 = 127;

/// What a shell's exit code says: there is one, but it cannot be run.
pub(super) const NOT_EXECUTABLE: i32 = 126;

/// Becomes the program `argv[0]`. Returns only if that fails, with an exit code and what to say.
pub(super) fn run(argv: Vec<CString>, environment: Vec<CString>, path: &[u8]) -> (i32, String) {
    let name = argv
        .first()
        .map(|name| name.to_bytes().to_vec())
        .unwrap_or_default();
    let by_path = name.contains(&b'/');
    let places = if by_path {
        vec![name]
    } else {
        candidates(&name, path)
    };
    let environment = Strings::new(environment);
    let arguments = Strings::new(argv.clone());
    let mut result = (
        NOT_FOUND,
        if by_path {
            "no such file or directory"
        } else {
            "command not found"
        }
        .into(),
    );
    for place in places {
        let Ok(place) = CString::new(place) else {
            continue;
        };
        let error = execute(&place, &arguments, &environment);
        match error.raw_os_error() {
            Some(libc::ENOEXEC) => return run_by_shell(&place, &argv, &environment),
            Some(libc::ENOENT) if exists(&place) => {
                result = (NOT_FOUND, "its interpreter does not exist".into())
            }
            Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG | libc::ELOOP) => {}
            Some(libc::EACCES | libc::EPERM) => {
                result = (NOT_EXECUTABLE, "permission denied".into())
            }
            _ => return (NOT_EXECUTABLE, describe(&error)),
        }
    }
    result
}

/// Where the program could be, in the order of `path`.
fn candidates(name: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if name.is_empty() {
        return Vec::new();
    }
    let place = |directory: &[u8]| {
        let directory = if directory.is_empty() {
            b"."
        } else {
            directory
        };
        [directory, b"/", name].concat()
    };
    path.split(|byte| *byte == b':').map(place).collect()
}

/// Runs a file without a `#!` line, which a shell would take for its own.
fn run_by_shell(place: &CString, argv: &[CString], environment: &Strings) -> (i32, String) {
    let shell = c"/bin/sh";
    let mut arguments = vec![shell.to_owned(), place.clone()];
    arguments.extend(argv.iter().skip(1).cloned());
    execute(shell, &Strings::new(arguments), environment);
    (NOT_EXECUTABLE, "exec format error".into())
}

fn exists(place: &CString) -> bool {
    Path::new(std::ffi::OsStr::from_bytes(place.to_bytes())).exists()
}

fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::E2BIG) => "argument list too long".into(),
        Some(libc::ETXTBSY) => "text file busy".into(),
        Some(libc::ENOMEM) => "out of memory".into(),
        Some(libc::EAGAIN) => "the limit on processes is reached".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_searched_in_order() {
        let places = |name: &str, path: &str| candidates(name.as_bytes(), path.as_bytes());
        assert_eq!(
            places("ls", "/bin:/usr/bin"),
            [b"/bin/ls".to_vec(), b"/usr/bin/ls".to_vec()]
        );
        assert_eq!(places("ls", ""), [b"./ls".to_vec()]);
        assert_eq!(
            places("-c", "/bin:"),
            [b"/bin/-c".to_vec(), b"./-c".to_vec()]
        );
        assert!(places("", "/bin").is_empty());
    }

    #[test]
    fn what_cannot_be_run_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str, mode: u32| {
            use std::os::unix::fs::PermissionsExt as _;
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        put("plain", "text", 0o644);
        put("orphan", "#!/no/such/interpreter\n", 0o755);
        let path = format!("/no-such-directory:{}", directory.path().display());
        let run = |name: &str| {
            run(
                vec![CString::new(name).unwrap()],
                Vec::new(),
                path.as_bytes(),
            )
        };
        assert_eq!(run("missing"), (127, "command not found".into()));
        assert_eq!(run("./missing"), (127, "no such file or directory".into()));
        assert_eq!(run(""), (127, "command not found".into()));
        assert_eq!(run("plain"), (126, "permission denied".into()));
        assert_eq!(run("/tmp"), (126, "permission denied".into()));
        assert_eq!(
            run("orphan"),
            (127, "its interpreter does not exist".into())
        );
        assert_eq!(run(&"x".repeat(300)), (127, "command not found".into()));
    }
}
