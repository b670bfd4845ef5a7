//! Programs, their arguments and their exits, and commands that no provider can run.

use crate::{
    case::Case,
    failure::{Result, Stop, ensure, refused, same, same_bytes},
    process::{contains, has, sh, start, succeed},
    spec::{Need, cases},
};
use futures_util::future::try_join_all;
use sandbox_core::{
    Command, ErrorKind, ExitStatus, FilesExt, Output, PtySize, Sandbox, SandboxExt, Stdin,
};
use std::time::Duration;

cases! { "exec":
    exit_codes_are_data [Shell],
    missing_program_is_127 [Shell],
    program_that_is_not_executable_is_126 [Shell],
    a_directory_is_not_executable [Shell],
    killed_program_is_137 [Shell],
    arguments_arrive_as_they_are [Shell],
    a_long_argument_arrives [Shell],
    a_program_name_is_not_split [Shell],
    a_name_with_a_slash_is_taken_from_the_working_directory [Shell],
    commands_run_at_the_same_time [Shell],
    fifty_commands_at_once [Shell],
    files_and_commands_do_not_wait_for_each_other [Shell],
    an_empty_program_is_invalid,
    nul_is_invalid_everywhere,
    empty_names_are_invalid,
    senseless_variable_names_are_invalid,
    a_zero_timeout_is_invalid,
    huge_arguments_are_invalid,
    what_the_provider_lacks_is_unsupported,
    a_refused_command_does_no_harm [Shell],
}

/// The message of a command that could not start.
fn complaint(sandbox: &dyn Sandbox, output: &Output) -> Result {
    let apart = has(sandbox, Need::SplitStderr);
    let said = if apart {
        &output.stderr
    } else {
        &output.stdout
    };
    ensure(!said.is_empty(), "it says nothing on standard error")
}

async fn exit_codes_are_data(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for code in [0, 1, 2, 42, 125, 255] {
        let output = sandbox.exec(Command::shell(format!("exit {code}"))).await?;
        same(output.status, ExitStatus::Code(code), "exit of a script")?;
    }
    same(
        sandbox.exec(Command::new("true")).await?.status,
        ExitStatus::Code(0),
        "true",
    )?;
    same(
        sandbox.exec(Command::new("false")).await?.status,
        ExitStatus::Code(1),
        "false",
    )
}

async fn missing_program_is_127(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for name in [
        "conformance-no-such-program",
        "/no/such/program",
        "./no-such-program",
        "-x",
        " ",
    ] {
        let output = sandbox.exec(Command::new(name)).await?;
        same(
            output.status,
            ExitStatus::Code(127),
            format_args!("program {name:?}"),
        )?;
        complaint(&*sandbox, &output)?;
    }
    let output = sandbox
        .exec(Command::shell("conformance-no-such-program"))
        .await?;
    same(output.status, ExitStatus::Code(127), "in a script")?;
    complaint(&*sandbox, &output)
}

async fn program_that_is_not_executable_is_126(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sandbox
        .files()
        .write_bytes("plain", "#!/bin/sh\necho no\n")
        .await?;
    for command in [Command::new("./plain"), Command::shell("./plain")] {
        let output = sandbox.exec(command).await?;
        same(output.status, ExitStatus::Code(126), "a file without x")?;
        complaint(&*sandbox, &output)?;
    }
    Ok(())
}

async fn a_directory_is_not_executable(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for command in [Command::new("/tmp"), Command::shell("/tmp")] {
        let output = sandbox.exec(command).await?;
        same(output.status, ExitStatus::Code(126), "a directory")?;
        complaint(&*sandbox, &output)?;
    }
    Ok(())
}

async fn killed_program_is_137(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let output = sandbox
        .exec(Command::shell("echo said; kill -9 $$"))
        .await?;
    same(
        output.status.code(),
        137,
        "the exit of a program that was killed",
    )?;
    same_bytes(&output.stdout, "said\n", "what it said before")?;
    ensure(!output.status.success(), "it counts as success")
}

async fn arguments_arrive_as_they_are(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let arguments = [
        "",
        " ",
        "a b",
        "'",
        "\"",
        "'\"'\"'",
        "$HOME",
        "${HOME}",
        "$(id)",
        "`id`",
        "\\",
        "\\n",
        "a\nb\n",
        "*",
        "~",
        "-n",
        "--",
        "#",
        ";",
        "&&",
        "|",
        ">",
        "!x",
        "%s",
        "{a,b}",
        "ü漢🦀",
        "\t",
        "\u{1b}[0m",
        "",
    ];
    let expected: String = arguments.iter().map(|text| format!("<{text}>\0")).collect();
    let program = Command::new("printf").arg("<%s>\\0").args(arguments);
    same_bytes(
        succeed(&*sandbox, program).await?.stdout,
        &expected,
        "of a program",
    )?;
    let script = Command::shell(r#"printf '<%s>\0' "$@""#).args(arguments);
    same_bytes(
        succeed(&*sandbox, script).await?.stdout,
        &expected,
        "of a script",
    )?;
    let counted = Command::shell("printf '%s,%s,%s' $# \"$1\" \"$3\"").args(["one", "-x", ""]);
    same_bytes(
        succeed(&*sandbox, counted).await?.stdout,
        "3,one,",
        "by number",
    )
}

async fn a_long_argument_arrives(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let long = "0123456789".repeat(10_000);
    let output = succeed(&*sandbox, Command::new("printf").args(["%s", &long])).await?;
    same_bytes(output.stdout, &long, "an argument of 100,000 bytes")
}

async fn a_program_name_is_not_split(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for name in ["echo split", "echo;echo", "$(echo true)", "true #"] {
        let output = sandbox.exec(Command::new(name)).await?;
        same(
            output.status,
            ExitStatus::Code(127),
            format_args!("program {name:?}"),
        )?;
    }
    Ok(())
}

async fn a_name_with_a_slash_is_taken_from_the_working_directory(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sh(
        &*sandbox,
        "mkdir d; printf '#!/bin/sh\\necho mine' > d/true; chmod +x d/true",
    )
    .await?;
    let cwd = sh(&*sandbox, "cd d && pwd").await?;
    let mine = succeed(&*sandbox, Command::new("./true").cwd(&cwd)).await?;
    same_bytes(mine.stdout, "mine\n", "./true")?;
    let usual = succeed(&*sandbox, Command::new("true").cwd(&cwd)).await?;
    same_bytes(usual.stdout, "", "true is looked up in PATH alone")
}

async fn commands_run_at_the_same_time(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    // Each waits for the other, so neither ends unless both run.
    let meet = |mine: &str, other: &str| {
        let script = format!("touch {mine}; until [ -e {other} ]; do sleep 0.05; done; echo met");
        start(&*sandbox, Command::shell(script))
    };
    let (one, two) = (meet("one", "two").await?, meet("two", "one").await?);
    for mut command in [one, two] {
        same(command.end().await?, ExitStatus::Code(0), "exit")?;
        same_bytes(command.stdout, "met\n", "output")?;
    }
    Ok(())
}

async fn fifty_commands_at_once(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let run = |number: u32| {
        let command = Command::shell("echo out $1; echo more $1; exit $1").arg(number.to_string());
        sandbox.exec(command)
    };
    let outputs = try_join_all((0..50).map(run)).await?;
    for (number, output) in (0..50).zip(outputs) {
        same(output.status, ExitStatus::Code(number), "exit")?;
        let expected = format!("out {number}\nmore {number}\n");
        same_bytes(
            output.stdout,
            expected,
            format_args!("output of command {number}"),
        )?;
    }
    Ok(())
}

async fn files_and_commands_do_not_wait_for_each_other(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "echo ready; until [ -e go ]; do sleep 0.05; done; cat go";
    let mut command = start(&*sandbox, Command::shell(script)).await?;
    command.until("ready\n").await?;
    sandbox.files().write_bytes("other", "text").await?;
    same_bytes(
        sandbox.files().read_bytes("other").await?,
        "text",
        "a file meanwhile",
    )?;
    same(sh(&*sandbox, "echo hi").await?, "hi", "a command meanwhile")?;
    sandbox.files().write_bytes("ready", "now\n").await?;
    let (from, to) = (crate::case::path("ready")?, crate::case::path("go")?);
    sandbox
        .files()
        .rename(&from, &to, Default::default())
        .await?;
    same(command.end().await?, ExitStatus::Code(0), "exit")?;
    same_bytes(command.stdout, "ready\nnow\n", "output")
}

/// Refused by `spawn`, and on a terminal alike.
async fn invalid(case: &Case, commands: Vec<(&str, Command)>) -> Result {
    let sandbox = case.sandbox().await?;
    for (what, command) in commands {
        let spawned = sandbox.spawn(command.clone()).await;
        refused(spawned, ErrorKind::InvalidArgument, what)?;
        if let Some(pty) = sandbox.pty() {
            let spawned = pty.spawn(command, PtySize::default()).await;
            refused(
                spawned,
                ErrorKind::InvalidArgument,
                format_args!("{what}, on a terminal"),
            )?;
        }
    }
    Ok(())
}

async fn an_empty_program_is_invalid(case: &Case) -> Result {
    invalid(
        case,
        vec![
            ("no name", Command::new("")),
            ("no name", Command::new("").arg("x")),
        ],
    )
    .await
}

async fn nul_is_invalid_everywhere(case: &Case) -> Result {
    let command = || Command::new("true");
    let commands = vec![
        ("NUL in the program", Command::new("tr\0ue")),
        ("NUL in the script", Command::shell("true\0")),
        ("NUL in an argument", command().arg("a\0b")),
        ("NUL in a variable's name", command().env("A\0B", "x")),
        ("NUL in a variable", command().env("A", "x\0y")),
        ("NUL in the directory", command().cwd("/tmp\0/x")),
        ("NUL in the user", command().user("ro\0ot")),
        ("NUL in the tag", command().tag("a\0b")),
    ];
    invalid(case, commands).await
}

async fn empty_names_are_invalid(case: &Case) -> Result {
    let command = || Command::new("true");
    let commands = vec![
        ("no directory", command().cwd("")),
        ("no user", command().user("")),
        ("no tag", command().tag("")),
    ];
    invalid(case, commands).await
}

async fn senseless_variable_names_are_invalid(case: &Case) -> Result {
    let command = |name| Command::new("true").env(name, "value");
    let commands = vec![
        ("no name", command("")),
        ("`=` in a name", command("A=B")),
        ("`=`", command("=")),
    ];
    invalid(case, commands).await
}

async fn a_zero_timeout_is_invalid(case: &Case) -> Result {
    invalid(
        case,
        vec![("no time", Command::new("true").timeout(Duration::ZERO))],
    )
    .await
}

async fn huge_arguments_are_invalid(case: &Case) -> Result {
    const HUGE: usize = 16 * 1024 * 1024;
    let commands = vec![
        (
            "one huge argument",
            Command::new("true").arg("x".repeat(HUGE)),
        ),
        (
            "many arguments",
            Command::new("true").args((0..HUGE / 1024).map(|_| "x".repeat(1024))),
        ),
        (
            "a huge variable",
            Command::new("true").env("A", "x".repeat(HUGE)),
        ),
        ("a huge script", Command::shell("#".repeat(HUGE))),
        ("a huge name", Command::new("x".repeat(HUGE))),
        (
            "a huge directory",
            Command::new("true").cwd("/x".repeat(HUGE / 2)),
        ),
    ];
    invalid(case, commands).await
}

async fn what_the_provider_lacks_is_unsupported(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let capabilities = sandbox.capabilities();
    if capabilities.stdin && capabilities.users && capabilities.range_read {
        return Err(Stop::Ignored("the provider lacks nothing of this".into()));
    }
    if !capabilities.stdin {
        let command = Command::new("cat").stdin(Stdin::Open);
        refused(
            sandbox.spawn(command).await,
            ErrorKind::Unsupported,
            "open standard input",
        )?;
    }
    if !capabilities.users {
        let command = Command::new("true").user("root");
        refused(
            sandbox.spawn(command).await,
            ErrorKind::Unsupported,
            "another user",
        )?;
        let options = sandbox_core::ReadOptions::new().user("root");
        let read = sandbox
            .files()
            .read(&crate::case::path("file")?, options)
            .await;
        refused(read, ErrorKind::Unsupported, "a file as another user")?;
    }
    if !capabilities.range_read {
        sandbox.files().write_bytes("file", "text").await?;
        let options = sandbox_core::ReadOptions::new().range(1..2);
        let read = sandbox
            .files()
            .read(&crate::case::path("file")?, options)
            .await;
        refused(read, ErrorKind::Unsupported, "a range of a file")?;
    }
    Ok(())
}

async fn a_refused_command_does_no_harm(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let command = Command::shell("touch made").cwd("/no/such/directory");
    refused(
        sandbox.spawn(command).await,
        ErrorKind::NotFound,
        "a missing directory",
    )?;
    let command = Command::shell("touch made").env("A=B", "");
    refused(
        sandbox.spawn(command).await,
        ErrorKind::InvalidArgument,
        "a senseless name",
    )?;
    let listing = sh(&*sandbox, "ls; echo end").await?;
    ensure(
        !contains(listing.as_bytes(), b"made"),
        "a refused command has run",
    )
}
