//! What a command finds: variables, working directory, user.

use crate::{
    case::Case,
    failure::{Result, ensure, refused, same, same_bytes},
    process::{sh, succeed},
    spec::cases,
};
use sandbox_core::{Command, ErrorKind, FilesExt};

cases! { "environment":
    variables_arrive_as_they_are [Shell],
    a_commands_variable_wins [Shell],
    a_commands_variables_are_its_own [Shell],
    the_callers_variables_do_not_leak [Shell],
    home_and_path_are_set [Shell],
    path_of_the_command_finds_the_program [Shell],
    a_command_starts_at_home [Shell],
    cwd_is_where_it_was_asked_for [Shell],
    a_missing_cwd_is_not_found [Shell],
    home_and_tmp_are_writable [Shell],
    a_command_runs_as_another_user [Shell, Users],
    a_missing_user_is_not_found [Shell, Users],
}

async fn variables_arrive_as_they_are(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let values = [
        "",
        "plain",
        "a b",
        "a\nb\n",
        "a=b=c",
        "$HOME",
        "$(id)",
        "`id`",
        "'single'",
        "\"double\"",
        "\\",
        "ü漢🦀",
        "\t",
        "() { :; }; echo shellshock",
    ];
    for value in values {
        let command = Command::shell("printf '<%s>' \"$VALUE\"").env("VALUE", value);
        let output = succeed(&*sandbox, command).await?;
        same_bytes(output.stdout, format!("<{value}>"), "the variable")?;
    }
    let command = Command::new("env")
        .env("lower_case_9", "x")
        .env("with-dash", "y");
    let output = succeed(&*sandbox, command).await?.stdout_text();
    for line in ["lower_case_9=x", "with-dash=y"] {
        let there = output.lines().any(|found| found == line);
        ensure(there, format_args!("{line:?} is not in the environment"))?;
    }
    Ok(())
}

async fn a_commands_variable_wins(case: &Case) -> Result {
    let options = case
        .options()
        .env_var("COLOUR", "red")
        .env_var("SIZE", "small");
    let sandbox = case.sandbox_with(options).await?;
    let command = Command::shell("echo $COLOUR $SIZE $HOME")
        .env("COLOUR", "blue")
        .env("HOME", "/tmp");
    let output = succeed(&*sandbox, command).await?;
    same_bytes(output.stdout, "blue small /tmp\n", "variables")
}

async fn a_commands_variables_are_its_own(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    succeed(&*sandbox, Command::shell(":").env("SECRET", "x")).await?;
    same(
        sh(&*sandbox, "echo \"<$SECRET>\"").await?,
        "<>",
        "in the next command",
    )
}

async fn the_callers_variables_do_not_leak(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let inside = succeed(&*sandbox, Command::new("env")).await?.stdout_text();
    // These describe any Linux, so that equal values prove nothing.
    let usual = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TERM",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
        "TZ",
        "HOSTNAME",
        "MAIL",
        "DEBIAN_FRONTEND",
    ];
    for (name, value) in std::env::vars() {
        let line = format!("{name}={value}");
        let leaks = !usual.contains(&name.as_str()) && inside.lines().any(|found| found == line);
        ensure(
            !leaks,
            format_args!("the caller's variable {name} is inside"),
        )?;
    }
    Ok(())
}

async fn home_and_path_are_set(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let home = sh(&*sandbox, "printf %s \"$HOME\"").await?;
    ensure(home.starts_with('/'), format_args!("HOME is {home:?}"))?;
    sh(&*sandbox, "test -d \"$HOME\"").await?;
    let path = sh(&*sandbox, "printf %s \"$PATH\"").await?;
    ensure(path.contains("/bin"), format_args!("PATH is {path:?}"))
}

async fn path_of_the_command_finds_the_program(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let script = "mkdir tools; printf '#!/bin/sh\\necho found' > tools/mytool; chmod +x tools/mytool; cd tools; pwd";
    let tools = sh(&*sandbox, script).await?;
    let command = Command::new("mytool").env("PATH", format!("{tools}:/usr/bin:/bin"));
    same_bytes(
        succeed(&*sandbox, command).await?.stdout,
        "found\n",
        "a program in PATH",
    )
}

async fn a_command_starts_at_home(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    sh(&*sandbox, "test \"$(pwd -P)\" = \"$(cd; pwd -P)\"").await?;
    sh(&*sandbox, "echo text > \"$HOME/note\"").await?;
    same_bytes(
        sandbox.files().read_bytes("note").await?,
        "text\n",
        "a relative path of files",
    )?;
    let output = succeed(&*sandbox, Command::new("cat").arg("note")).await?;
    same_bytes(output.stdout, "text\n", "a relative path of a program")
}

async fn cwd_is_where_it_was_asked_for(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let home = sh(&*sandbox, "pwd -P").await?;
    for name in [
        "plain",
        "with space",
        "-dash",
        "new\nline",
        "$HOME",
        "'quote\"",
        "ü漢",
    ] {
        let directory = format!("{home}/{name}");
        succeed(&*sandbox, Command::new("mkdir").args(["--", &directory])).await?;
        for command in [Command::new("pwd"), Command::shell("pwd")] {
            let output = succeed(&*sandbox, command.cwd(&directory)).await?;
            same_bytes(output.stdout, format!("{directory}\n"), "pwd")?;
        }
    }
    let output = succeed(&*sandbox, Command::new("pwd").cwd("/")).await?;
    same_bytes(output.stdout, "/\n", "pwd at the root")
}

async fn a_missing_cwd_is_not_found(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for cwd in ["/no/such/directory", "/tmp/../no-such-directory"] {
        for command in [
            Command::new("true"),
            Command::shell("true"),
            Command::new("no-such-program"),
        ] {
            let result = sandbox.spawn(command.cwd(cwd)).await;
            refused(
                result,
                ErrorKind::NotFound,
                format_args!("directory {cwd:?}"),
            )?;
        }
    }
    Ok(())
}

async fn home_and_tmp_are_writable(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for directory in ["\"$HOME\"", "/tmp"] {
        let script = format!("cd {directory} && echo text > probe && cat probe && rm probe");
        same(sh(&*sandbox, &script).await?, "text", "a file made there")?;
    }
    sh(
        &*sandbox,
        "echo text > /dev/null && test -c /dev/null && head -c 1 /dev/urandom > /dev/null",
    )
    .await?;
    Ok(())
}

async fn a_command_runs_as_another_user(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    for user in ["root", "0", "0:0"] {
        let output = succeed(&*sandbox, Command::shell("id -u").user(user)).await?;
        same_bytes(output.stdout, "0\n", format_args!("id as {user:?}"))?;
    }
    let script = "test \"$(pwd -P)\" = \"$(cd; pwd -P)\" && echo home";
    let output = succeed(&*sandbox, Command::shell(script).user("root")).await?;
    same_bytes(output.stdout, "home\n", "where root starts")?;
    let output = succeed(
        &*sandbox,
        Command::shell("id -u; id -g").user("12345:23456").cwd("/"),
    )
    .await?;
    same_bytes(output.stdout, "12345\n23456\n", "ids that have no name")
}

async fn a_missing_user_is_not_found(case: &Case) -> Result {
    let sandbox = case.sandbox().await?;
    let result = sandbox
        .spawn(Command::new("true").user("conformance-nobody"))
        .await;
    refused(result, ErrorKind::NotFound, "a missing user")?;
    let path = crate::case::path("/tmp")?;
    let options = sandbox_core::StatOptions::new().user("conformance-nobody");
    let result = sandbox.files().stat(&path, options).await;
    refused(result, ErrorKind::NotFound, "a file as a missing user")
}
