//! The `sandbox` command: reads the command line, does what it says, and turns the outcome into an exit code.

mod args;
mod commands;
mod keys;
mod language;
mod output;
mod parse;
mod provider;
mod session;
mod signals;
mod stdio;
mod table;
mod terminal;
mod transfer;

use args::{Action, Cli};
use clap::{
    Parser,
    error::{ContextKind, ContextValue, ErrorKind as UsageKind},
};
use output::Stop;
use std::process::ExitCode;

/// What ends with this went wrong on our side, not in a program inside a sandbox.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    // Before anything else is built, so that `--version`, `--help` and wrong usage cost nothing.
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return usage_exit(usage),
    };
    output::start_log();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return ExitCode::from(output::report(&error.into())),
    };
    let code = match runtime.block_on(dispatch(cli)) {
        Ok(code) => code,
        Err(error) => output::report(&error),
    };
    // A thread that still reads standard input must not hold up the end.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Prints help, version or a usage error.
fn usage_exit(mut usage: clap::Error) -> ExitCode {
    if usage.kind() == UsageKind::UnknownArgument
        && let Some(ContextValue::StyledStr(form)) = usage.get(ContextKind::Usage)
        && form.to_string().contains("sandbox run")
        && let Some(ContextValue::String(argument)) = usage.get(ContextKind::InvalidArg)
    {
        // It is more likely meant for the program than a slip in one of our options.
        let tip = format!("to pass '{argument}' to the program, write it after '--'");
        usage.remove(ContextKind::SuggestedArg);
        usage.insert(
            ContextKind::Suggested,
            ContextValue::StyledStrs(vec![tip.into()]),
        );
    }
    // Nothing is left to do if the stream is closed.
    let _ = usage.print();
    match usage.kind() {
        UsageKind::DisplayHelp | UsageKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(FAILED),
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<u8> {
    let state_dir = cli.state_dir.as_deref();
    match cli.action {
        // These have their own idea of what Ctrl-C means.
        Action::Create(args) => commands::create::create(state_dir, args).await,
        Action::Fork(args) => commands::fork::fork(state_dir, args).await,
        Action::Run(args) => commands::run::run(state_dir, args).await,
        Action::Exec(args) => commands::exec::exec(state_dir, args).await,
        Action::Shell(args) => commands::exec::shell(state_dir, args).await,
        Action::Attach(args) => commands::attach::attach(state_dir, args).await,
        action => {
            let mut signals = signals::Signals::new()?;
            tokio::select! {
                code = plain(state_dir, action) => code,
                // What is half copied stays so, as with other programs that copy.
                signal = signals.next() => Err(Stop::Signal(signal).into()),
            }
        }
    }
}

async fn plain(state_dir: Option<&std::path::Path>, action: Action) -> anyhow::Result<u8> {
    match action {
        Action::Cp(args) => commands::cp::cp(state_dir, args).await,
        Action::Inspect(args) => commands::inspect::inspect(state_dir, &args).await,
        Action::Logs(args) if args.network => commands::events::events(state_dir, &args).await,
        Action::Logs(args) => commands::logs::logs(state_dir, &args).await,
        Action::Ls(args) => commands::ls::ls(state_dir, args).await,
        Action::Net(args) => commands::net::net(state_dir, args).await,
        Action::Stats(args) => commands::stats::stats(state_dir, args).await,
        Action::Port(args) => commands::port::port(state_dir, args).await,
        Action::Proxy(args) => commands::port::proxy(state_dir, args).await,
        Action::Pause(args) => commands::pause::pause(state_dir, &args.ids).await,
        Action::Resume(args) => commands::pause::resume(state_dir, &args.ids).await,
        Action::Snapshot(args) => commands::fork::snapshot(state_dir, args).await,
        Action::Kill(args) => commands::kill::kill(state_dir, args).await,
        Action::Templates(args) => commands::templates::templates(state_dir, args).await,
        Action::Volumes(args) => commands::volumes::volumes(state_dir, args).await,
        Action::Prune(args) => commands::prune::prune(state_dir, &args),
        Action::Doctor(args) => commands::doctor::doctor(state_dir, &args),
        Action::Completions(args) => commands::pages::completions(&args),
        Action::Relay(_) => commands::relay::relay(state_dir),
        Action::Man(args) => commands::pages::man(&args),
        Action::Create(_)
        | Action::Fork(_)
        | Action::Run(_)
        | Action::Exec(_)
        | Action::Shell(_)
        | Action::Attach(_) => {
            unreachable!("dispatched before")
        }
    }
}
