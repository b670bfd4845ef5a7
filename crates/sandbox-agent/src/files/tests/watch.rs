//! Watching, with what happens in the middle of it.

use std::fs;
use std::os::fd::AsFd;

use sandbox_agent::protocol::files::{Change, FileReply, FileRequest};
use sandbox_agent::protocol::{Blob, Wire};

use super::Fixture;
use crate::sys::socket;

fn watch(path: &str, recursive: bool) -> FileRequest {
    FileRequest::Watch {
        path: path.into(),
        user: Some("root".into()),
        recursive,
    }
}

/// Changes as short texts.
fn text(change: &Change) -> String {
    let name = |path: &Blob| String::from_utf8_lossy(&path.0).into_owned();
    match change {
        Change::Created { path } => format!("+{}", name(path)),
        Change::Written { path } => format!("~{}", name(path)),
        Change::Attributes { path } => format!("={}", name(path)),
        Change::Removed { path } => format!("-{}", name(path)),
        Change::Lost {} => "lost".into(),
    }
}

impl Fixture {
    /// The next packet of changes; `None` when the watch has ended.
    fn changes(&self) -> Option<Vec<String>> {
        let message = socket::receive(self.socket().as_fd()).unwrap().unwrap();
        match FileReply::decode(&message.bytes).unwrap() {
            FileReply::Changes { changes } => Some(changes.iter().map(text).collect()),
            FileReply::Done {} => None,
            other => panic!("{other:?}"),
        }
    }

    /// Changes up to this one.
    fn until(&self, last: &str) -> Vec<String> {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|seen| seen != last) {
            let more = self.changes().expect("the watch has ended");
            for change in more {
                if seen.last().is_none_or(|seen| seen != last) {
                    seen.push(change);
                }
            }
        }
        seen
    }
}

#[test]
fn what_happens_is_told_in_its_order() {
    let fixture = Fixture::watching();
    fs::create_dir_all(fixture.host("/tmp/w/below")).unwrap();
    fs::write(fixture.host("/tmp/w/old"), "").unwrap();
    fixture.done(&watch("/tmp/w", false));
    let at = |path: &str| fixture.host(&format!("/tmp/w/{path}"));
    fs::write(at("below/unseen"), "x").unwrap();
    fs::write(at("new"), "x").unwrap();
    fs::set_permissions(
        at("old"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    fs::rename(at("new"), at("newer")).unwrap();
    fs::remove_file(at("old")).unwrap();
    fs::create_dir(at("end")).unwrap();
    assert_eq!(
        fixture.until("+end"),
        ["+new", "~new", "=old", "-new", "+newer", "-old", "+end"]
    );
    // When it is gone itself, the worker is as good as before.
    fs::rename(fixture.host("/tmp/w"), fixture.host("/tmp/v")).unwrap();
    assert_eq!(fixture.until("-"), ["-"]);
    assert_eq!(fixture.changes(), None);
    fixture.done(&watch("/tmp/v", false));
    fs::remove_dir_all(fixture.host("/tmp/v")).unwrap();
    fixture.until("-");
    assert_eq!(fixture.changes(), None);
}

#[test]
fn new_directories_are_followed_without_a_gap() {
    let fixture = Fixture::watching();
    fs::create_dir_all(fixture.host("/tmp/w/a/b")).unwrap();
    fixture.done(&watch("/tmp/w", true));
    let at = |path: &str| fixture.host(&format!("/tmp/w/{path}"));
    fs::write(at("a/b/file"), "").unwrap();
    assert!(fixture.until("+a/b/file").len() <= 2);
    for number in 0..100 {
        // Each is there before anybody can have heard of those above.
        let path = format!("d{number}/e/f");
        fs::create_dir_all(at(&path)).unwrap();
        fs::write(at(&path).join("file"), "x").unwrap();
    }
    fixture.until("+d99/e/f/file");
    // What moves is told where it is now, and what happens in it afterwards.
    fs::rename(at("d1"), at("moved")).unwrap();
    let seen = fixture.until("+moved/e/f/file");
    assert!(seen.contains(&"-d1".to_owned()), "{seen:?}");
    fs::remove_file(at("moved/e/f/file")).unwrap();
    fixture.until("-moved/e/f/file");
    fs::create_dir(at("d2/after")).unwrap();
    fixture.until("+d2/after");
}

#[test]
fn a_link_leads_nowhere_and_a_file_is_no_directory() {
    let fixture = Fixture::watching();
    fs::create_dir_all(fixture.host("/tmp/w")).unwrap();
    fs::write(fixture.host("/tmp/file"), "").unwrap();
    fixture.fails(libc::ENOTDIR, &watch("/tmp/file", false));
    fixture.fails(libc::ENOENT, &watch("/tmp/missing", true));
    fixture.done(&watch("/tmp/w", true));
    std::os::unix::fs::symlink("..", fixture.host("/tmp/w/link")).unwrap();
    fixture.until("+link");
    fs::write(fixture.host("/tmp/other"), "").unwrap();
    fs::write(fixture.host("/tmp/w/end"), "").unwrap();
    assert_eq!(fixture.until("+end"), ["+end"]);
}

#[test]
fn what_nobody_reads_is_lost_and_said_to_be() {
    let fixture = Fixture::watching();
    fs::create_dir_all(fixture.host("/tmp/w/d")).unwrap();
    fixture.done(&watch("/tmp/w", true));
    let at = |path: String| fixture.host(&format!("/tmp/w/{path}"));
    for number in 0..50_000 {
        let path = at(format!("d/{number}"));
        fs::write(&path, "").unwrap();
        fs::remove_file(&path).unwrap();
    }
    let mut told = 0;
    let mut lost = false;
    while !lost && told < 100_000 {
        for change in fixture.changes().unwrap() {
            lost |= change == "lost";
            told += usize::from(!change.starts_with('~'));
        }
    }
    // Either all of it, or the loss.
    assert!(lost || told == 100_000, "{told}");
    // From there on it goes on as before.
    fs::create_dir(at("after".into())).unwrap();
    fs::write(at("after/file".into()), "").unwrap();
    fixture.until("+after/file");
}

#[test]
fn a_watch_has_a_worker_of_its_own() {
    for (fixture, request) in [
        (Fixture::new(), watch("/tmp", false)),
        (Fixture::watching(), super::read("/etc/passwd", 0, 10)),
    ] {
        let (reply, _) = super::ask(fixture.socket(), &request);
        assert!(
            matches!(
                reply,
                FileReply::Failed {
                    errno: libc::EPROTO,
                    ..
                }
            ),
            "{reply:?}"
        );
    }
}
