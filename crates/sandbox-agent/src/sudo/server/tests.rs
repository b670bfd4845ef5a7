//! Peers of every kind against one connection, with commands started without a sandbox.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::sys::{file, testing};

/// Long enough for any machine, short enough for a test that fails.
const PATIENCE: Patience = Patience {
    first_word: Duration::from_secs(30),
    grace: Duration::from_secs(30),
};

/// Starts commands as a process of this test, and remembers what was asked for.
#[derive(Default)]
struct Here {
    asked: RefCell<Vec<Spawn>>,
    pids: RefCell<Vec<u32>>,
}

impl Starter for Here {
    fn start(&self, lent: &Lent<'_>) -> Result<(u32, OwnedFd), String> {
        self.asked.borrow_mut().push(lent.spawn.clone());
        let text =
            |blob: &Blob| String::from_utf8(blob.0.clone()).map_err(|error| error.to_string());
        let words = lent
            .spawn
            .argv
            .iter()
            .map(text)
            .collect::<Result<Vec<_>, _>>()?;
        let (program, arguments) = words.split_first().ok_or("no command")?;
        let [stdin, stdout, stderr] = lent.standard.map(|fd| {
            fd.try_clone_to_owned()
                .map(Stdio::from)
                .map_err(|error| error.to_string())
        });
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(stdin?)
            .stdout(stdout?)
            .stderr(stderr?)
            .process_group(0);
        let child = command.spawn().map_err(|error| error.to_string())?;
        self.pids.borrow_mut().push(child.id());
        let ended = wait::open_child(child.id()).map_err(|error| error.to_string())?;
        Ok((child.id(), ended))
    }
}

/// Starts nothing, and says so.
struct Nothing;

impl Starter for Nothing {
    fn start(&self, _: &Lent<'_>) -> Result<(u32, OwnedFd), String> {
        Err("nothing is started here".into())
    }
}

fn request(argv: &[&str]) -> SudoRequest {
    SudoRequest {
        argv: argv.iter().map(|&word| word.into()).collect(),
        env: Vec::new(),
        user: None,
        cwd: false,
    }
}

fn null() -> File {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap()
}

fn reply(socket: &OwnedFd) -> Option<SudoReply> {
    let message = socket::receive(socket.as_fd()).unwrap()?;
    Some(SudoReply::decode(&message.bytes).unwrap())
}

fn ended(code: i32, message: &str) -> Option<SudoReply> {
    Some(SudoReply::Ended {
        code,
        message: message.into(),
    })
}

/// Runs one request to its end; `talk` goes on with the connection meanwhile.
fn run(
    starter: &impl Starter,
    request: &SudoRequest,
    stdout: &impl AsFd,
    talk: impl FnOnce(OwnedFd) + Send,
) {
    let (ours, theirs) = testing::socket_pair();
    let null = null();
    let fds = [null.as_fd(), stdout.as_fd(), null.as_fd()];
    socket::send(ours.as_fd(), &request.encode(), &fds).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| talk(ours));
        converse(&theirs, starter, PATIENCE).unwrap();
        drop(theirs);
    });
}

#[test]
fn the_code_comes_through() {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        run(
            &Here::default(),
            &request(&["sh", "-c", script]),
            &null(),
            |socket| {
                assert_eq!(reply(&socket), ended(code, ""));
            },
        );
    }
}

#[test]
fn output_goes_straight_to_the_callers_descriptors() {
    let (mut reader, writer) = io::pipe().unwrap();
    run(
        &Here::default(),
        &request(&["echo", "hello"]),
        &writer,
        |socket| {
            assert_eq!(reply(&socket), ended(0, ""));
        },
    );
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello\n");
}

#[test]
fn what_cannot_be_started_is_told() {
    run(&Nothing, &request(&["true"]), &null(), |socket| {
        assert_eq!(reply(&socket), ended(1, "nothing is started here"));
    });
}

#[test]
fn signals_are_passed_on_to_the_group() {
    let (mut reader, writer) = io::pipe().unwrap();
    let script = "trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 1; done";
    run(
        &Here::default(),
        &request(&["sh", "-c", script]),
        &writer,
        move |socket| {
            let mut word = [0; 6];
            reader.read_exact(&mut word).unwrap();
            // Numbers that are none are the end of a peer, so this one must be right.
            let control = SudoControl::Signal {
                signal: libc::SIGUSR1,
            };
            socket::send(socket.as_fd(), &control.encode(), &[]).unwrap();
            assert_eq!(reply(&socket), ended(3, ""));
        },
    );
}

#[test]
fn a_peer_that_leaves_takes_its_command_along() {
    for rude in [false, true] {
        let (mut reader, writer) = io::pipe().unwrap();
        // One that ends on HUP, and one that does not; it has a child in its group, too.
        let trap = if rude { "trap '' HUP; " } else { "" };
        let script = format!("{trap}sleep 1000 & echo ready; wait; sleep 1000");
        let (ours, theirs) = testing::socket_pair();
        let null = null();
        socket::send(
            ours.as_fd(),
            &request(&["sh", "-c", &script]).encode(),
            &[null.as_fd(), writer.as_fd(), null.as_fd()],
        )
        .unwrap();
        drop(writer);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut word = [0; 6];
                reader.read_exact(&mut word).unwrap();
                drop(ours);
                // The pipe ends when nobody of the group is left.
                assert_eq!(reader.read(&mut word).unwrap(), 0);
            });
            let grace = Duration::from_millis(if rude { 50 } else { 30_000 });
            let here = Here::default();
            converse(&theirs, &here, Patience { grace, ..PATIENCE }).unwrap();
            for pid in here.pids.borrow().iter() {
                assert!(libc::WIFSIGNALED(
                    wait::exit_status(pid.cast_signed()).unwrap()
                ));
            }
        });
    }
}

#[test]
fn only_root_and_user_are_served() {
    for (uid, served) in [(0, true), (1000, true), (7, false), (65_534, false)] {
        let (ours, theirs) = std::thread::spawn(move || {
            testing::become_user(uid).unwrap();
            testing::socket_pair()
        })
        .join()
        .unwrap();
        let null = null();
        let here = Here::default();
        socket::send(
            ours.as_fd(),
            &request(&["true"]).encode(),
            &[null.as_fd(); 3],
        )
        .unwrap();
        converse(&theirs, &here, PATIENCE).unwrap();
        let Some(SudoReply::Ended { code, message }) = reply(&ours) else {
            panic!("no reply")
        };
        assert_eq!(
            (code, here.asked.borrow().len()),
            if served { (0, 1) } else { (1, 0) },
            "{uid}: {message}"
        );
        if let Some(spawn) = here.asked.borrow().first() {
            let name = if uid == 0 { "root" } else { "user" };
            assert!(spawn.env.contains(&("SUDO_USER".into(), name.into())));
            assert!(
                spawn
                    .env
                    .contains(&("SUDO_UID".into(), uid.to_string().as_str().into()))
            );
            assert!(spawn.env.contains(&("SUDO_COMMAND".into(), "true".into())));
            assert_eq!(spawn.user.as_deref(), Some("root"));
        }
    }
}

#[test]
fn the_asked_user_is_passed_on() {
    for (user, want) in [
        (None, "root"),
        (Some("ann"), "ann"),
        (Some("#7"), "7"),
        (Some("##"), "#"),
    ] {
        let request = SudoRequest {
            user: user.map(Into::into),
            ..request(&["true"])
        };
        let spawn = command(
            request,
            "user",
            Peer {
                pid: 1,
                uid: 1000,
                gid: 1000,
            },
        );
        assert_eq!(spawn.user.as_deref(), Some(want));
    }
}

#[test]
fn nobody_can_make_it_wait() {
    let (_silent, theirs) = testing::socket_pair();
    let start = Instant::now();
    let first_word = Duration::from_millis(20);
    converse(
        &theirs,
        &Nothing,
        Patience {
            first_word,
            ..PATIENCE
        },
    )
    .unwrap();
    assert!(start.elapsed() >= first_word);
}

#[test]
fn whoever_breaks_the_protocol_is_left() {
    let null = null();
    let good = request(&["true"]).encode();
    let with_cwd = SudoRequest {
        cwd: true,
        ..request(&["true"])
    }
    .encode();
    let cases: [(&[u8], usize); 6] = [
        (&good, 0),
        (&good, 2),
        (&good, 4),
        (&with_cwd, 3),
        (b"nonsense", 3),
        (&[], 1),
    ];
    for (bytes, count) in cases {
        let (ours, theirs) = testing::socket_pair();
        socket::send(ours.as_fd(), bytes, &vec![null.as_fd(); count]).unwrap();
        let here = Here::default();
        let _ = converse(&theirs, &here, PATIENCE);
        drop(theirs);
        assert!(reply(&ours).is_none(), "{count}");
        assert!(here.asked.borrow().is_empty());
    }
    // One that has left at once.
    let (ours, theirs) = testing::socket_pair();
    drop(ours);
    converse(&theirs, &Nothing, PATIENCE).unwrap();
}

#[test]
fn a_directory_comes_along() {
    struct Look(u64);
    impl Starter for Look {
        fn start(&self, lent: &Lent<'_>) -> Result<(u32, OwnedFd), String> {
            let inode = file::status(lent.directory.unwrap()).unwrap().st_ino;
            assert_eq!(inode, self.0);
            Err("seen".into())
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let fd = File::open(directory.path()).unwrap();
    let null = null();
    let (ours, theirs) = testing::socket_pair();
    let request = SudoRequest {
        cwd: true,
        ..request(&["true"])
    };
    let fds = [null.as_fd(), null.as_fd(), null.as_fd(), fd.as_fd()];
    socket::send(ours.as_fd(), &request.encode(), &fds).unwrap();
    converse(
        &theirs,
        &Look(file::status(fd.as_fd()).unwrap().st_ino),
        PATIENCE,
    )
    .unwrap();
    assert_eq!(reply(&ours), ended(1, "seen"));
}

proptest! {
    #[test]
    fn any_packet_is_answered_or_left(bytes in proptest::collection::vec(any::<u8>(), 1..200), count in 0_usize..6) {
        let null = null();
        let (ours, theirs) = testing::socket_pair();
        socket::send(ours.as_fd(), &bytes, &vec![null.as_fd(); count]).unwrap();
        let _ = converse(&theirs, &Nothing, PATIENCE);
        drop(theirs);
        let got = reply(&ours);
        let refused = matches!(got, None | Some(SudoReply::Ended { code: 1, .. }));
        prop_assert!(refused, "{:?}", got);
    }

    #[test]
    fn any_request_is_answered(
        argv: Vec<Vec<u8>>,
        env: Vec<(Vec<u8>, Vec<u8>)>,
        user: Option<String>,
    ) {
        let argv = argv.into_iter().map(Blob).collect();
        let env = env.into_iter().map(|(name, value)| (Blob(name), Blob(value))).collect();
        let request = SudoRequest { argv, env, user, cwd: false };
        let null = null();
        let (ours, theirs) = testing::socket_pair();
        socket::send(ours.as_fd(), &request.encode(), &[null.as_fd(); 3]).unwrap();
        converse(&theirs, &Nothing, PATIENCE).unwrap();
        prop_assert_eq!(reply(&ours), ended(1, "nothing is started here"));
    }
}
