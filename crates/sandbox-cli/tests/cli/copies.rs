//! `sandbox cp`: files and directories, in and out, and a sandbox that does not mean well.

use crate::support::{Home, Outcome, finish};
use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
};

/// A sandbox, and a directory of this machine.
struct Pair {
    home: Home,
    id: String,
    here: tempfile::TempDir,
}

impl Pair {
    fn new() -> Self {
        let home = Home::shared();
        let id = home.create(&[]);
        Self {
            home,
            id,
            here: tempfile::tempdir().unwrap(),
        }
    }

    /// Copies; `there:` stands for the sandbox, and other paths are in the directory.
    fn cp(&self, source: &str, destination: &str) -> Outcome {
        let side = |text: &str| match text.strip_prefix("there:") {
            Some(path) => format!("{}:{path}", self.id),
            None => format!("{}/{text}", self.here.path().display()),
        };
        self.home
            .sandbox(&["cp", &side(source), &side(destination)])
    }

    /// Runs a script in the sandbox.
    fn sh(&self, script: &str) -> String {
        self.home
            .sandbox(&["exec", &self.id, "--", "sh", "-c", script])
            .ok()
    }

    fn here(&self, name: &str) -> std::path::PathBuf {
        self.here.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.here(name)).unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_file_goes_in_and_comes_out() {
    let pair = Pair::new();
    fs::write(pair.here("a"), "text").unwrap();
    fs::set_permissions(pair.here("a"), fs::Permissions::from_mode(0o4710)).unwrap();
    pair.cp("a", "there:").assert_code(0);
    pair.cp("a", "there:new/deep/b").assert_code(0);
    pair.cp("a", "there:dir/").assert_code(0);
    assert_eq!(
        pair.sh("cat a new/deep/b dir/a; stat -c %a a"),
        "texttexttext710\n"
    );
    pair.cp("there:new/deep/b", "").assert_code(0);
    pair.cp("there:a", "c").assert_code(0);
    pair.cp("there:a", "made/").assert_code(0);
    assert_eq!(
        [pair.read("b"), pair.read("c"), pair.read("made/a")].concat(),
        "texttexttext"
    );
    assert_eq!(mode(&pair.here("c")) & 0o7700, 0o700);
}

#[test]
fn a_directory_goes_in_and_comes_out_with_all_that_is_in_it() {
    let pair = Pair::new();
    for directory in ["src/sub/deep", "src/empty"] {
        fs::create_dir_all(pair.here(directory)).unwrap();
    }
    let odd = "odd \n-\u{e4}'\"";
    for (name, text) in [
        ("src/a", "A"),
        ("src/sub/deep/b", ""),
        (&format!("src/{odd}"), "odd"),
    ] {
        fs::write(pair.here(name), text).unwrap();
    }
    fs::set_permissions(pair.here("src/a"), fs::Permissions::from_mode(0o500)).unwrap();
    symlink("../a", pair.here("src/sub/link")).unwrap();
    symlink("/etc/hostname", pair.here("src/out")).unwrap();
    pair.cp("src", "there:").assert_code(0);
    pair.cp("src", "there:other").assert_code(0);
    pair.cp("src/.", "there:flat").assert_code(0);
    pair.cp("src", "there:other").assert_code(0);
    let list = "cd \"$1\" && find . | LC_ALL=C sort | md5sum";
    let listed: Vec<_> = ["src", "other/src", "flat"]
        .map(|directory| pair.sh(&list.replace("$1", directory)))
        .into();
    assert!(
        listed[1..].iter().all(|text| *text == listed[0]),
        "{listed:?}"
    );
    assert_eq!(
        pair.sh("readlink src/out src/sub/link; stat -c %a src/a"),
        "/etc/hostname\n../a\n500\n"
    );

    let outcome = pair.cp("there:src", "back");
    outcome.assert_code(0);
    assert!(
        outcome
            .stderr
            .contains("left out out: a link that leads out"),
        "{outcome:?}"
    );
    assert_eq!(pair.read("back/a"), "A");
    assert_eq!(pair.read("back/sub/link"), "A");
    assert_eq!(pair.read(&format!("back/{odd}")), "odd");
    assert_eq!(pair.read("back/sub/deep/b"), "");
    assert!(pair.here("back/empty").is_dir());
    assert_eq!(mode(&pair.here("back/a")), 0o500);
    assert!(fs::symlink_metadata(pair.here("back/out")).is_err());
    pair.cp("there:src", "back").assert_code(0);
    assert_eq!(pair.read("back/src/a"), "A");
    pair.cp("there:src/.", "back").assert_code(0);
    assert_eq!(fs::read_dir(pair.here("back/src")).unwrap().count(), 4);
}

#[test]
fn a_sandbox_cannot_reach_out_of_the_destination() {
    let pair = Pair::new();
    fs::create_dir(pair.here("victim")).unwrap();
    fs::create_dir(pair.here("dest")).unwrap();
    // A trap that an earlier copy could have left.
    symlink("../victim", pair.here("dest/trap")).unwrap();
    pair.sh("mkdir -p evil/trap && echo bad > evil/trap/file");
    let outcome = pair.cp("there:evil/.", "dest");
    outcome.assert_refused("is a link");
    assert_eq!(fs::read_dir(pair.here("victim")).unwrap().count(), 0);

    let victim = pair.here("victim");
    pair.sh(&format!(
        "mkdir -p e2/d && cd e2 && ln -s {0} abs && ln -s ../../victim rel && ln -s d/../../../victim sly && \
         ln -s .. d/up && ln -s d/up/../victim slyer && mkfifo pipe && ln -s d good && chmod 4755 . && \
         touch -- '-rf' && printf x > setuid && chmod 4755 setuid",
        victim.display()
    ));
    let outcome = pair.cp("there:e2", "safe");
    outcome.assert_code(0);
    for name in ["abs", "rel", "sly", "slyer", "pipe"] {
        assert!(
            outcome.stderr.contains(&format!("left out {name}: ")),
            "{outcome:?}"
        );
        assert!(
            fs::symlink_metadata(pair.here("safe").join(name)).is_err(),
            "{name} is there"
        );
    }
    assert!(pair.here("safe/good").is_dir());
    assert_eq!(mode(&pair.here("safe/setuid")), 0o755);
}

#[test]
fn pipes_and_devices_of_this_machine_are_written_and_not_replaced() {
    let pair = Pair::new();
    pair.sh("echo x > a");
    pair.home
        .sandbox(&["cp", &format!("{}:a", pair.id), "/dev/null"])
        .assert_code(0);
    let null = fs::metadata("/dev/null").unwrap().file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_char_device(&null));
    fs::write(pair.here("real"), "old").unwrap();
    symlink("real", pair.here("link")).unwrap();
    pair.cp("there:a", "link").assert_code(0);
    assert_eq!(pair.read("real"), "x\n");
    assert!(pair.here("link").is_symlink());
}

#[test]
fn a_dash_is_standard_input_or_output() {
    let pair = Pair::new();
    let there = format!("{}:piped", pair.id);
    let bytes = vec![7; 3 << 20];
    let cp = pair
        .home
        .sandbox_with(&["cp", "--json", "-", &there], bytes.clone())
        .json();
    assert_eq!(cp["bytes"], 3 << 20);
    let output = pair.home.command(&["cp", &there, "-"]).output().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == bytes && output.stderr.is_empty());
    pair.home
        .sandbox(&["cp", "-", &format!("{}:", pair.id)])
        .assert_refused("is a directory");
}

#[test]
fn an_input_that_cannot_be_read_is_not_taken_for_an_empty_one() {
    let pair = Pair::new();
    let there = format!("{}:made", pair.id);
    pair.sh("printf before > made");
    let no_file = fs::File::open("/").unwrap();
    let only_written = fs::File::create("/dev/null").unwrap();
    for (input, words) in [
        (no_file, "Is a directory"),
        (only_written, "Bad file descriptor"),
    ] {
        let mut command = pair.home.command(&["cp", "-", &there]);
        let outcome = finish(command.stdin(input).spawn().unwrap());
        outcome.assert_refused("standard input cannot be read");
        assert!(outcome.stderr.contains(words), "{outcome:?}");
    }
    assert_eq!(pair.sh("cat made"), "before");
}

#[test]
fn a_file_that_cannot_be_read_does_not_keep_back_the_others() {
    let pair = Pair::new();
    pair.sh("mkdir d; echo a > d/a; echo b > d/b; chmod 0 d/b; echo c > d/c");
    let outcome = pair.cp("there:d", "d");
    outcome.assert_code(125);
    assert!(outcome.stderr.contains("left out b: "), "{outcome:?}");
    assert_eq!(pair.read("d/a") + &pair.read("d/c"), "a\nc\n");
    assert!(!pair.here("d/b").exists());
    let source = format!("{}:d", pair.id);
    let here = pair.here("e").to_str().unwrap().to_owned();
    let outcome = pair.home.sandbox(&["cp", "--json", &source, &here]);
    outcome.assert_code(125);
    let report: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(report["incomplete"], true);
    assert_eq!(report["skipped"][0]["path"], "b");
}

#[test]
fn holes_stay_holes() {
    const SIZE: u64 = 256 << 20;
    let pair = Pair::new();
    pair.sh("mkdir d; truncate -s 256M d/hole; printf x | dd of=d/hole bs=1 seek=100M conv=notrunc; cp d/hole hole");
    for name in ["d/hole", "hole"] {
        pair.cp(&format!("there:{}", name.split('/').next().unwrap()), "")
            .assert_code(0);
        let info = fs::metadata(pair.here(name)).unwrap();
        assert_eq!(info.len(), SIZE);
        assert!(
            info.blocks() * 512 < SIZE / 100,
            "{name} takes {} blocks",
            info.blocks()
        );
        let mut byte = [0; 3];
        let file = fs::File::open(pair.here(name)).unwrap();
        file.read_exact_at(&mut byte, (100 << 20) - 1).unwrap();
        assert_eq!(&byte, b"\0x\0");
    }
}

#[test]
fn what_cannot_be_copied_is_said_and_leaves_nothing() {
    let pair = Pair::new();
    pair.cp("there:nothing", "x").assert_refused("nothing");
    pair.cp("nothing", "there:").assert_refused("No such file");
    pair.sh("mkdir d; touch f; mkfifo p");
    pair.cp("there:p", "x")
        .assert_refused("neither file nor directory");
    pair.cp("there:f", "no/such/directory")
        .assert_refused("No such file");
    pair.cp("there:/etc/shadow", "x").assert_refused("shadow");
    pair.cp("there:f/", "x").assert_refused("");
    let cp = |args: &[&str]| pair.home.sandbox(&[&["cp"], args].concat());
    cp(&["a", "b"]).assert_refused("ID:PATH");
    cp(&["x:a", "y:b"]).assert_refused("one sandbox");
    cp(&[":a", "b"]).assert_refused("names no sandbox");
    cp(&["nobody:a", "b"]).assert_refused("no sandbox \"nobody\"");
    cp(&["", "b"]).assert_refused("empty");
    assert_eq!(fs::read_dir(pair.here.path()).unwrap().count(), 0);
}

#[test]
fn the_rights_are_those_of_the_user_that_is_asked_for() {
    let pair = Pair::new();
    fs::write(pair.here("a"), "x").unwrap();
    pair.cp("a", "there:/root/a").assert_code(125);
    let source = pair.here("a");
    let there = format!("{}:/root/a", pair.id);
    pair.home
        .sandbox(&["cp", "--user", "root", source.to_str().unwrap(), &there])
        .assert_code(0);
    let owner = pair.home.sandbox(&[
        "exec", "-u", "root", &pair.id, "stat", "-c", "%U", "/root/a",
    ]);
    assert_eq!(owner.ok(), "root\n");
}
