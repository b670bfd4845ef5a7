//! Account files as they should be, and as somebody may make them.

use super::*;
use proptest::prelude::*;

fn database(passwd: &str, group: &str) -> Database {
    Database {
        passwd: passwd.into(),
        group: group.into(),
    }
}

fn sample() -> Database {
    database(
        "root:x:0:0:root:/root:/bin/bash\n\n# comment\nbroken\nhuge:x:4294967296:1::/:\npostgres:x:105:110:,,,:/var/lib/postgresql:/bin/bash\n\
         postgres:x:7:7::/second:/bin/no\nshort:x:200:200\nrelative:x:201:201::home:sh\n:x:5:5::/:\n",
        "root:x:0:\nssl-cert:x:109:postgres\npostgres:x:110:postgres\ndocker:x:111:someone,postgres\ndouble:x:111:postgres\nbad:x:-1:postgres\n",
    )
}

#[test]
fn known_accounts_need_no_files() {
    let user = resolve(None).unwrap();
    assert_eq!(
        (user.uid, user.gid, user.name.as_str(), user.home.as_slice()),
        (1000, 1000, "user", &b"/home/user"[..])
    );
    assert_eq!(resolve(Some("user")), Ok(user.clone()));
    assert_eq!(resolve(Some("1000")), Ok(user));
    assert_eq!(resolve(Some("root")).unwrap().uid, 0);
    assert_eq!(resolve(Some("0")).unwrap().home, b"/root");
    assert_eq!(
        database("", "").account("1000:1000").unwrap().home,
        b"/home/user"
    );
}

#[test]
fn names_are_found_in_the_files() {
    let account = sample().account("postgres").unwrap();
    assert_eq!((account.uid, account.gid), (105, 110));
    assert_eq!(account.groups, [109, 111]);
    assert_eq!(account.home, b"/var/lib/postgresql");
    assert_eq!(account.shell, b"/bin/bash");
    assert_eq!(sample().account("105").unwrap(), account);
}

#[test]
fn an_explicit_group_replaces_all_groups() {
    let account = sample().account("postgres:docker").unwrap();
    assert_eq!((account.uid, account.gid), (105, 111));
    assert!(account.groups.is_empty());
    let account = sample().account("7777:42").unwrap();
    assert_eq!(
        (
            account.uid,
            account.gid,
            account.name.as_str(),
            account.home.as_slice()
        ),
        (7777, 42, "7777", &b"/"[..])
    );
}

#[test]
fn ids_without_an_account_have_their_own_group() {
    let account = sample().account("7777").unwrap();
    assert_eq!((account.uid, account.gid), (7777, 7777));
}

#[test]
fn bad_accounts_are_told_apart() {
    let db = sample();
    for unknown in [
        "nobody-such",
        "huge",
        "broken",
        "postgres:nogroup",
        "-1",
        "../etc",
        "bad:bad",
    ] {
        assert!(
            matches!(db.account(unknown), Err(AccountError::Unknown(_))),
            "{unknown}"
        );
    }
    for invalid in [
        "",
        ":",
        "65536",
        "4294967295",
        "99999999999999999999",
        "postgres:",
        ":5",
        "1:65536",
    ] {
        assert!(
            matches!(db.account(invalid), Err(AccountError::Invalid(_))),
            "{invalid}"
        );
    }
}

#[test]
fn short_lines_and_relative_paths_get_defaults() {
    for name in ["short", "relative"] {
        let account = sample().account(name).unwrap();
        assert_eq!(
            (account.home.as_slice(), account.shell.as_slice()),
            (&b"/"[..], &b"/bin/sh"[..])
        );
    }
}

#[test]
fn owners_are_read_as_chown_reads_them() {
    let db = sample();
    assert_eq!(db.owner("user"), Ok((Some(1000), None)));
    assert_eq!(db.owner("postgres:docker"), Ok((Some(105), Some(111))));
    assert_eq!(db.owner("12:34"), Ok((Some(12), Some(34))));
    assert_eq!(db.owner(":root"), Ok((None, Some(0))));
    assert!(matches!(db.owner("70000"), Err(AccountError::Invalid(_))));
    assert!(matches!(db.owner(""), Err(AccountError::Invalid(_))));
    assert!(matches!(
        db.owner("postgres:"),
        Err(AccountError::Invalid(_))
    ));
    assert!(matches!(
        db.owner("nobody-such"),
        Err(AccountError::Unknown(_))
    ));
}

#[test]
fn hostile_files_count_as_empty() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "decoy:x:12:12::/:\n").unwrap();
    std::os::unix::fs::symlink("secret", dir.path().join("passwd")).unwrap();
    std::fs::create_dir(dir.path().join("group")).unwrap();
    assert!(matches!(
        Database::read(dir.path()).account("decoy"),
        Err(AccountError::Unknown(_))
    ));
    assert!(matches!(
        Database::read(&dir.path().join("missing")).account("decoy"),
        Err(AccountError::Unknown(_))
    ));

    std::fs::remove_file(dir.path().join("passwd")).unwrap();
    let fifo = std::process::Command::new("mkfifo")
        .arg(dir.path().join("passwd"))
        .status()
        .unwrap();
    assert!(fifo.success());
    assert!(matches!(
        Database::read(dir.path()).account("decoy"),
        Err(AccountError::Unknown(_))
    ));
}

#[test]
fn only_the_start_of_an_endless_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = "first:x:12:12::/:\n".to_owned();
    text.push_str(&"#".repeat(usize::try_from(FILE_LIMIT).unwrap()));
    text.push_str("\nlast:x:13:13::/:\n");
    std::fs::write(dir.path().join("passwd"), text).unwrap();
    let db = Database::read(dir.path());
    assert_eq!(db.account("first").unwrap().uid, 12);
    assert!(db.account("last").is_err());
}

#[test]
fn names_follow_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut names = Names::default();
    names.refresh(dir.path());
    assert_eq!((names.user(12), names.group(12)), (None, None));
    std::fs::write(
        dir.path().join("passwd"),
        "ann:x:12:12::/:\nbob:x:12:12::/:\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("group"), "staff:x:12:\n").unwrap();
    names.refresh(dir.path());
    assert_eq!(
        (names.user(12).as_deref(), names.group(12).as_deref()),
        (Some("ann"), Some("staff"))
    );
    std::fs::remove_file(dir.path().join("passwd")).unwrap();
    names.refresh(dir.path());
    assert_eq!(
        (names.user(12), names.group(12).as_deref()),
        (None, Some("staff"))
    );
}

proptest! {
    #[test]
    fn nothing_in_the_files_panics(passwd: Vec<u8>, group: Vec<u8>, spec: String) {
        let db = Database { passwd, group };
        if let Ok(account) = db.account(&spec) {
            prop_assert!(account.uid < ID_LIMIT && account.gid < ID_LIMIT);
            prop_assert!(account.groups.iter().all(|gid| *gid < ID_LIMIT));
        }
        let _ = db.owner(&spec);
    }

    #[test]
    fn lines_survive_a_round_trip(name in "[a-z_][a-z0-9_-]{0,30}", uid in 0..ID_LIMIT, gid in 0..ID_LIMIT) {
        let db = database(&format!("{name}:x:{uid}:{gid}::/home/{name}:/bin/sh\n"), "");
        let account = db.account(&name).unwrap();
        prop_assert_eq!((account.uid, account.gid), (uid, gid));
        prop_assert_eq!(account.home, format!("/home/{name}").into_bytes());
    }
}
