//! Scripts: the shell sees them exactly as they were written.

use crate::{
    case::Case,
    failure::{Result, ensure, same, same_bytes},
    process::{sh, succeed},
    spec::cases,
};
use sandbox_core::{Command, ExitStatus, SandboxExt};

cases! { "shell":
    heredocs_keep_their_text [Shell],
    set_e_stops_at_the_first_failure [Shell],
    the_last_command_decides_the_exit [Shell],
    quotes_and_comments_are_the_scripts_own [Shell],
    a_script_may_begin_with_a_dash [Shell],
    a_script_does_not_read_itself [Shell],
    a_syntax_error_is_an_exit_code [Shell],
    a_long_script_runs [Shell],
    pipes_and_redirections_work [Shell],
    scripts_share_nothing_but_files [Shell],
}

async fn heredocs_keep_their_text(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let text = "plain\n  $HOME `id` $(id) \\ \"quoted\" 'single'\n\n\ttab\nEO\n";
    let script = format!("cat <<'EOF'\n{text}EOF\n");
    let output = succeed(&*sandbox, Command::shell(&script)).await?;
    same_bytes(output.stdout, text, "a quoted heredoc")?;
    let output = succeed(&*sandbox, Command::shell(script.trim_end())).await?;
    same_bytes(
        output.stdout,
        text,
        "a heredoc at the very end of the script",
    )?;
    let script = "x=1; cat <<EOF; cat <<-'END' | tr a-z A-Z\n$x $((x + 1))\nEOF\n\tindented\n\tEND\necho after";
    let output = succeed(&*sandbox, Command::shell(script)).await?;
    same_bytes(
        output.stdout,
        "1 2\nINDENTED\nafter\n",
        "two heredocs in a line",
    )
}

async fn set_e_stops_at_the_first_failure(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let output = sandbox
        .exec(Command::shell("set -e\necho one\nfalse\necho two\n"))
        .await?;
    same(output.status, ExitStatus::Code(1), "exit with set -e")?;
    same_bytes(output.stdout, "one\n", "output with set -e")?;
    let output = sandbox
        .exec(Command::shell("set -eu; echo one; (exit 7); echo two"))
        .await?;
    same(
        output.status,
        ExitStatus::Code(7),
        "exit of a subshell with set -e",
    )?;
    let output = sandbox.exec(Command::shell("false\necho two\n")).await?;
    same(output.status, ExitStatus::Code(0), "exit without set -e")?;
    same_bytes(output.stdout, "two\n", "output without set -e")
}

async fn the_last_command_decides_the_exit(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for (script, code) in [
        ("true; false", 1),
        ("false; true", 0),
        ("false | true", 0),
        ("true | (exit 3)", 3),
        ("(exit 9)", 9),
        ("exec sh -c 'exit 5'", 5),
        ("trap 'exit 6' EXIT; exit 1", 6),
        ("true &", 0),
        (":", 0),
        ("# nothing", 0),
    ] {
        let output = sandbox.exec(Command::shell(script)).await?;
        same(
            output.status,
            ExitStatus::Code(code),
            format_args!("exit of {script:?}"),
        )?;
    }
    Ok(())
}

async fn quotes_and_comments_are_the_scripts_own(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for (script, expected) in [
        ("echo 'a  b' \"c'd\" e\\ f", "a  b c'd e f"),
        ("echo before # and no newline", "before"),
        ("echo one \\\n  two", "one two"),
        ("\n\n echo blank \n\n", "blank"),
        ("printf '%s' 'a\nb'", "a\nb"),
        ("echo '\"' \"'\" '$x' '`'", "\" ' $x `"),
        ("f() { echo \"f:$1\"; }\nf x", "f:x"),
        ("echo ü漢🦀", "ü漢🦀"),
    ] {
        same(
            sh(&*sandbox, script).await?,
            expected,
            format_args!("output of {script:?}"),
        )?;
    }
    Ok(())
}

async fn a_script_may_begin_with_a_dash(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for script in ["-c", "-e", "--version", "-conformance-no-such-program"] {
        let output = sandbox.exec(Command::shell(script)).await?;
        same(
            output.status,
            ExitStatus::Code(127),
            format_args!("exit of {script:?}"),
        )?;
    }
    Ok(())
}

async fn a_script_does_not_read_itself(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let output = succeed(&*sandbox, Command::shell("cat\nread x\necho after\n")).await?;
    same_bytes(
        output.stdout,
        "after\n",
        "a script whose commands read standard input",
    )
}

async fn a_syntax_error_is_an_exit_code(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for script in ["echo 'open", "if true; then", "fi", "echo )"] {
        let output = sandbox.exec(Command::shell(script)).await?;
        let failed = matches!(output.status, ExitStatus::Code(code) if code != 0);
        ensure(failed, format_args!("{script:?} gave {:?}", output.status))?;
        let said = !output.stderr.is_empty() || !output.stdout.is_empty();
        ensure(said, format_args!("{script:?} says nothing"))?;
    }
    same(sh(&*sandbox, "echo on").await?, "on", "a script afterwards")
}

async fn a_long_script_runs(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let mut script = "x=0\n".to_owned();
    while script.len() < 100_000 {
        script.push_str("x=$((x + 1)) # one more line of this long script\n");
    }
    let lines = script.lines().count() - 1;
    script.push_str("echo $x");
    same(
        sh(&*sandbox, &script).await?,
        lines.to_string(),
        "lines that ran",
    )
}

async fn pipes_and_redirections_work(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script =
        "printf 'b\\na\\nb\\n' | sort | uniq -c | awk '{ print $1 $2 }' > counted; cat < counted";
    same(sh(&*sandbox, script).await?, "1a\n2b", "a pipeline")?;
    let script = "(echo out; echo err >&2) 2> err > out; cat err out";
    same(sh(&*sandbox, script).await?, "err\nout", "redirections")
}

async fn scripts_share_nothing_but_files(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sh(
        &*sandbox,
        "x=1; export x; cd /; umask 077; echo kept > \"$HOME/file\"",
    )
    .await?;
    let script = "echo \"x=$x\"; test \"$(pwd)\" != / && echo home; cat file";
    same(
        sh(&*sandbox, script).await?,
        "x=\nhome\nkept",
        "a script after another",
    )
}
