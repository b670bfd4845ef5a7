//! Paths by their text alone: what `.`, `..`, double slashes and a home directory make of them. Links are not known here.

use sandbox_core::SandboxPath;

/// The components of a path from the root. `None` for a relative one without `home`.
pub(super) fn normal(path: &SandboxPath, home: Option<&[Vec<u8>]>) -> Option<Vec<Vec<u8>>> {
    let mut components = match path.is_absolute() {
        true => Vec::new(),
        false => home?.to_vec(),
    };
    for component in path.as_bytes().split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            name => components.push(name.to_vec()),
        }
    }
    Some(components)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(path: &str, home: Option<&str>) -> Option<String> {
        let home = home.map(|home| normal(&SandboxPath::new(home).unwrap(), None).unwrap());
        let normal = normal(&SandboxPath::new(path).unwrap(), home.as_deref())?;
        Some(format!(
            "/{}",
            String::from_utf8(normal.join(&b'/')).unwrap()
        ))
    }

    #[test]
    fn dots_and_slashes_are_resolved_by_text() {
        for (path, home, wanted) in [
            ("/", None, Some("/")),
            ("//a/./b/", None, Some("/a/b")),
            ("/a/../../b", None, Some("/b")),
            ("/a/...", None, Some("/a/...")),
            ("a", None, None),
            ("a", Some("/home/user"), Some("/home/user/a")),
            ("../../etc", Some("/home/user"), Some("/etc")),
        ] {
            assert_eq!(shown(path, home).as_deref(), wanted, "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_normal_stays_so_and_has_no_dots(path in "/[a./]{0,40}") {
            let once = shown(&path, None).unwrap();
            prop_assert_eq!(shown(&once, None).unwrap(), once.clone());
            let parts: Vec<_> = once.split('/').skip(1).collect();
            prop_assert!(once == "/" || parts.iter().all(|part| !["", ".", ".."].contains(part)));
        }
    }
}
