//! The blocking handles over real sandboxes: commands, events and files without a runtime around them.

#![cfg(all(feature = "blocking", feature = "local", target_os = "linux"))]
use sandbox::{
    ErrorKind, ExitStatus, Signal, blocking::BlockingProvider, local::LocalProvider, prelude::*,
};

#[test]
fn a_program_without_a_runtime_uses_a_sandbox() {
    let state = tempfile::tempdir().unwrap();
    let local = LocalProvider::builder().state_dir(state.path()).build();
    let provider = BlockingProvider::new(local.unwrap()).unwrap();
    let sandbox = provider.create(CreateOptions::new()).unwrap();
    sandbox.files().write_bytes("in", "text").unwrap();

    let output = sandbox.exec(Command::shell("cat in; echo err >&2; exit 3"));
    let output = output.unwrap();
    assert_eq!(output.stdout_text(), "text");
    assert_eq!(output.stderr_text(), "err\n");
    assert_eq!(output.status, ExitStatus::Code(3));

    let command = Command::new("cat").stdin(Stdin::Open);
    let mut process = sandbox.spawn(command).unwrap();
    let control = process.control();
    control.write_stdin("echo").unwrap();
    let said = process.find(|event| matches!(event, Ok(ProcessEvent::Stdout(_))));
    assert_eq!(said.unwrap().unwrap(), ProcessEvent::Stdout("echo".into()));
    control.signal(Signal::KILL).unwrap();
    assert_eq!(process.wait().unwrap(), ExitStatus::Signal(9));

    let id = sandbox.id().clone();
    assert!(sandbox.kill().unwrap());
    let gone = provider.sandbox(&id).info().unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::SandboxNotFound);
}
