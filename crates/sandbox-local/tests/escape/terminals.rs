//! Terminals: input that seems to be typed by others.

use crate::{
    attempt::attempt,
    lab::{Lab, Who, in_time},
};
use sandbox_agent::protocol::zygote::weaken::SECCOMP;
use sandbox_core::{PtySize, prelude::*};
use std::fs;

/// Makes a terminal control call on one's own terminal.
const CONTROL: &str = r#"
    import pty
    pid, _ = pty.fork()
    if pid == 0:
        try:
            call("ioctl", 0, int(given("REQUEST"), 16), ctypes.create_string_buffer(b"x", 16))
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    fail_as(pid)
    return "done"
"#;

#[test]
fn typing_for_others() {
    let legacy = fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti");
    // Newer kernels can be told to refuse it themselves.
    let without = if legacy.is_ok_and(|value| value.trim() == "0") {
        "EIO"
    } else {
        "done"
    };
    // The second number is the same to the kernel, which looks at 32 bits.
    for request in ["5412", "100005412"] {
        attempt(CONTROL)
            .given("REQUEST", request)
            .fails("EPERM")
            .works_without(SECCOMP, Who::User, without);
    }
}

#[test]
fn the_consoles_selection() {
    attempt(CONTROL)
        .given("REQUEST", "541c")
        .fails("EPERM")
        .works_without(SECCOMP, Who::User, "ENOTTY");
}

#[test]
fn another_line_discipline() {
    attempt(CONTROL)
        .given("REQUEST", "5423")
        .fails("EPERM")
        // The number is no discipline that there is.
        .works_without(SECCOMP, Who::User, "EINVAL");
}

#[tokio::test]
async fn the_terminal_of_root() {
    let sandbox = Lab::new().sandbox().await;
    let pty = sandbox.require_pty().unwrap();
    let command = Command::shell("tty; cat").user("root");
    let mut process = pty.spawn(command, PtySize::new(24, 80)).await.unwrap();
    let mut said = String::new();
    while !said.contains('\n') {
        if let Some(ProcessEvent::Pty(bytes)) = in_time(process.try_next()).await.unwrap() {
            said.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    let open = [("TERMINAL", said.trim().to_owned())];
    let code = "os.open(given('TERMINAL'), os.O_WRONLY | os.O_NOCTTY); return 'open'";
    assert_eq!(sandbox.python_given(Who::User, code, &open).await, "EACCES");
    assert_eq!(sandbox.python_given(Who::Root, code, &open).await, "open");
}

#[tokio::test]
async fn the_terminal_of_another_sandbox() {
    let lab = Lab::new();
    let (victim, attacker) = (lab.sandbox().await, lab.sandbox().await);
    let pty = victim.require_pty().unwrap();
    let _process = pty
        .spawn(Command::new("cat"), PtySize::new(24, 80))
        .await
        .unwrap();
    assert_eq!(victim.sh(Who::User, "ls /dev/pts").await, "0\nptmx");
    assert_eq!(attacker.sh(Who::Root, "ls /dev/pts").await, "ptmx");
}
