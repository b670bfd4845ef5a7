//! The stand-in for `sudo`, whose other side is PID 1's.

use crate::lab::{Inside, Lab, Who, in_time, until};
use sandbox_core::prelude::*;

/// Runs a command as a user that has no name in any test.
async fn as_somebody(sandbox: &Inside, script: &str) -> String {
    let command = Command::shell(script).user("33:33").merge_stderr();
    sandbox.run(command).await.stdout_text().trim().to_owned()
}

/// It works for whom it is meant.
async fn works(sandbox: &Inside) {
    until("sudo serves again", async || {
        sandbox.sh(Who::User, "sudo id -u").await == "0"
    })
    .await;
    sandbox.works().await;
}

#[tokio::test]
async fn by_somebody_else() {
    let sandbox = Lab::new().sandbox().await;
    works(&sandbox).await;
    let refused = as_somebody(&sandbox, "sudo id -u; echo $?").await;
    assert!(refused.ends_with("\n1"), "{refused}");
    assert!(refused.contains("may not use it"), "{refused}");
    // Who asks is who connects, whatever it says of itself.
    let lie = r#"
        import socket
        sudo = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sudo.connect("/run/.sandbox/sudo")
        try:
            sudo.sendmsg([b"x"], [(socket.SOL_SOCKET, 2, struct.pack("3i", 1, 0, 0))])
        except PermissionError as error:
            return "EPERM"
        return "believed"
    "#;
    assert_eq!(sandbox.python(Who::User, lie).await, "EPERM");
}

#[tokio::test]
async fn for_more_than_root_has() {
    let sandbox = Lab::new().sandbox().await;
    let look = "grep -E '^(Cap|NoNewPrivs|Seccomp|Uid|Gid)' /proc/self/status; ls /proc/self/fd | wc -l; cat /proc/self/limits";
    let by_sudo = sandbox
        .sh(Who::User, &format!("sudo sh -c \"{look}\""))
        .await;
    let by_call = sandbox.sh(Who::Root, &format!("sh -c \"{look}\"")).await;
    assert_eq!(by_sudo, by_call);
    // The environment of the caller stays the caller's.
    let script = "LD_PRELOAD=/evil.so PYTHONPATH=/evil PATH=/evil SECRET=x /usr/bin/sudo env";
    let environment = sandbox.sh(Who::User, script).await;
    assert!(environment.contains("SUDO_UID=1000"), "{environment}");
    for word in ["evil", "SECRET"] {
        assert!(!environment.contains(word), "{environment}");
    }
}

#[tokio::test]
async fn with_nonsense() {
    let sandbox = Lab::new().sandbox().await;
    let nonsense = r#"
        import array, socket
        null = os.open("/dev/null", os.O_RDWR)
        for round in range(60):
            sudo = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sudo.connect("/run/.sandbox/sudo")
            sudo.settimeout(5)
            fds = [null] * (round % 20)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sudo.sendmsg([os.urandom(round * round)], rights)
                sudo.recv(100)
            except OSError as error:
                assert error.errno in (errno.ECONNRESET, errno.EPIPE, errno.EMSGSIZE), error
        return "done"
    "#;
    assert_eq!(in_time(sandbox.python(Who::User, nonsense)).await, "done");
    works(&sandbox).await;
}

#[tokio::test]
async fn with_more_than_fits() {
    let sandbox = Lab::new().sandbox().await;
    let script = "sudo true $(head -c 100000 /dev/zero | tr '\\\\0' x); echo $?; sudo -u no-such-user true; echo $?; \
                  sudo -u '#4294967295' true; echo $?; sudo -u '#70000' true; echo $?; sudo no-such-program; echo $?";
    let codes = sandbox.sh(Who::User, script).await;
    let codes: Vec<i32> = codes.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(codes.len(), 5, "{codes:?}");
    assert_eq!(codes[1..], [1, 1, 1, 127]);
    works(&sandbox).await;
}

#[tokio::test]
async fn by_many_that_say_nothing() {
    let sandbox = Lab::new().sandbox().await;
    let flood = r#"
        import socket
        held = []
        try:
            for _ in range(300):
                sudo = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                sudo.setblocking(False)
                sudo.connect("/run/.sandbox/sudo")
                held.append(sudo)
        except OSError:
            pass
        ready()
    "#;
    for who in Who::all() {
        let flooding = sandbox.start(who, flood, &[]).await;
        // They take places of the sandbox's own processes, and nothing of PID 1.
        assert!(in_time(sandbox.info()).await.is_ok());
        flooding.kill().await;
        works(&sandbox).await;
    }
}

#[tokio::test]
async fn whose_other_side_is_killed() {
    let sandbox = Lab::new().sandbox().await;
    for _ in 0..5 {
        let killed = sandbox
            .sh(Who::User, "sudo sh -c 'kill -9 -1'; echo $?")
            .await;
        // Whoever asked is told, or was killed as well.
        assert!(
            matches!(&*killed, "" | "1" | "137") || killed.contains("sudo:"),
            "{killed}"
        );
        works(&sandbox).await;
    }
}

#[tokio::test]
async fn that_is_taken_away() {
    let sandbox = Lab::new().sandbox().await;
    let script = "rm -rf /run/.sandbox; mkdir -m 777 /run/.sandbox; mkfifo /run/.sandbox/sudo";
    sandbox.sh(Who::Root, script).await;
    let refused = sandbox.sh(Who::User, "sudo id -u; echo $?").await;
    assert!(refused.ends_with("\n1"), "{refused}");
    sandbox.works().await;
}
