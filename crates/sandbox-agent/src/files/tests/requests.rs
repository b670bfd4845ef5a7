//! Requests of any kind, and bytes that are none.

use std::os::fd::AsFd;

use proptest::prelude::*;
use sandbox_agent::protocol::Wire;

use super::*;

#[test]
fn malformed_requests_are_answered() {
    let worker = Fixture::new();
    for bytes in [
        &[255_u8][..],
        &[0, 255, 255, 255, 255],
        &[3],
        &list("/home", 1, 1).encode()[..5],
    ] {
        socket::send(worker.socket().as_fd(), bytes, &[]).unwrap();
        let (reply, _) = receive(worker.socket()).unwrap();
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
    // Descriptors that nobody asked for are closed.
    let (reader, writer) = std::io::pipe().unwrap();
    socket::send(
        worker.socket().as_fd(),
        &stat("/", true).encode(),
        &[writer.as_fd()],
    )
    .unwrap();
    drop(writer);
    assert!(matches!(
        receive(worker.socket()).unwrap().0,
        FileReply::Failed {
            errno: libc::EPROTO,
            ..
        }
    ));
    assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    assert_eq!(worker.stat("/").uid, 0);
}

fn path() -> impl Strategy<Value = Blob> {
    let part = prop_oneof![
        Just(b"..".to_vec()),
        Just(b"home".to_vec()),
        Just(b"tmp".to_vec()),
        Just(b"a".to_vec()),
        Just(b"".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(part, 0..6)
        .prop_map(|parts| Blob([b"/", parts.join(&b'/').as_slice()].concat()))
}

fn any_user() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        Just(None),
        Just(root()),
        Just(Some("ann".to_owned())),
        any::<Option<String>>()
    ]
}

fn request() -> impl Strategy<Value = FileRequest> {
    let mode = || proptest::option::of(any::<u32>());
    let data = || proptest::collection::vec(any::<u8>(), 0..64).prop_map(Blob);
    prop_oneof![
        (path(), any_user(), any::<u64>(), any::<u64>()).prop_map(|(path, user, offset, len)| {
            FileRequest::Read {
                path,
                user,
                offset,
                len,
            }
        }),
        (path(), any_user(), mode(), data()).prop_map(|(path, user, mode, data)| {
            FileRequest::Write {
                path,
                user,
                mode,
                data,
            }
        }),
        (path(), any_user(), mode()).prop_map(|(path, user, mode)| FileRequest::Create {
            path,
            user,
            mode
        }),
        (path(), any_user(), any::<bool>()).prop_map(|(path, user, follow)| FileRequest::Stat {
            path,
            user,
            follow
        }),
        (path(), any_user(), any::<u32>(), any::<u64>()).prop_map(|(path, user, depth, limit)| {
            FileRequest::List {
                path,
                user,
                depth,
                limit,
            }
        }),
        (path(), any_user(), mode(), any::<bool>()).prop_map(|(path, user, mode, parents)| {
            FileRequest::Mkdir {
                path,
                user,
                mode,
                parents,
            }
        }),
        (path(), path(), any_user()).prop_map(|(from, to, user)| FileRequest::Rename {
            from,
            to,
            user
        }),
        (path(), any_user(), any::<bool>()).prop_map(|(path, user, recursive)| {
            FileRequest::Remove {
                path,
                user,
                recursive,
            }
        }),
        (
            path(),
            any_user(),
            mode(),
            proptest::option::of(any::<String>())
        )
            .prop_map(|(path, user, mode, owner)| FileRequest::SetPermissions {
                path,
                user,
                mode,
                owner
            }),
        (path(), any_user(), data()).prop_map(|(path, user, target)| FileRequest::Symlink {
            path,
            user,
            target
        }),
    ]
}

#[test]
fn any_request_is_answered() {
    let worker = Fixture::new();
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&proptest::collection::vec(request(), 1..20), |requests| {
            for request in requests {
                let (_, end) = worker.list(&request);
                let answered = !matches!(end, FileReply::Entries { .. });
                prop_assert!(answered);
            }
            Ok(())
        })
        .unwrap();
    runner
        .run(&proptest::collection::vec(any::<u8>(), 1..300), |bytes| {
            if FileRequest::decode(&bytes).is_err() {
                socket::send(worker.socket().as_fd(), &bytes, &[]).unwrap();
                let answered = matches!(
                    receive(worker.socket()),
                    Some((
                        FileReply::Failed {
                            errno: libc::EPROTO,
                            ..
                        },
                        _
                    ))
                );
                prop_assert!(answered);
            }
            Ok(())
        })
        .unwrap();
}
