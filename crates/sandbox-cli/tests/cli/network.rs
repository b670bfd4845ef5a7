//! What sandboxes may reach. No packet leaves: what is tried is closed beneath every policy.

use crate::support::Home;

/// Whether a connection is made, and else why not.
const TRY: &str = "import errno, socket
try:
    socket.create_connection(('10.0.0.1', 80), 20).recv(1)
    print('reached')
except OSError as error:
    print(errno.errorcode[error.errno])";

#[test]
fn run_refuses_what_is_not_allowed_at_once() {
    let home = Home::shared();
    for options in [["--network", "public"], ["--allow", "a.example"]] {
        let args = [&["run"], &options[..], &["--lang", "python", "-c", TRY]].concat();
        assert_eq!(home.sandbox(&args).ok(), "ECONNRESET\n");
    }
    let off = home.sandbox(&["run", "--lang", "python", "-c", TRY]).ok();
    assert_eq!(off, "ENETUNREACH\n");
    let wrong = home.sandbox(&[
        "run",
        "--allow",
        "http://a.example",
        "--lang",
        "python",
        "-c",
        TRY,
    ]);
    wrong.assert_code(125);
}

#[test]
fn the_policy_of_a_detached_sandbox_is_shown_and_changed_and_what_it_refused_is_told() {
    let home = Home::own();
    let id = home.create(&["--allow", "a.example:80"]);
    let shown = home.sandbox(&["net", &id]).ok();
    assert_eq!(shown, "allow a.example:80\ndefault deny\n");
    let tried = home
        .sandbox(&["exec", &id, "--", "python3", "-c", TRY])
        .ok();
    assert_eq!(tried, "ECONNRESET\n");
    let changed = home
        .sandbox(&["net", &id, "--allow", "10.0.0.0/8", "--cut"])
        .ok();
    assert_eq!(
        changed,
        "allow 10.0.0.0/8\nallow a.example:80\ndefault deny\n"
    );
    let tried = home
        .sandbox(&["exec", &id, "--", "python3", "-c", TRY])
        .ok();
    assert_eq!(tried, "ECONNRESET\n");
    let told = home.sandbox(&["logs", "--network", &id]).ok();
    assert_eq!(told.matches("10.0.0.1").count(), 2, "{told}");
    assert_eq!(told.matches("private").count(), 2, "{told}");
    home.sandbox(&["net", &id, "--set", "off"]).ok();
    assert_eq!(home.sandbox(&["net", &id]).ok(), "off\n");
}
