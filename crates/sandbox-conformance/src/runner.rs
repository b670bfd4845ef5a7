//! Runs cases: each on its own task, with a deadline, and with its sandboxes killed at the end whatever that is.

use crate::{
    case::Case,
    cases,
    failure::{Result, Stop, described},
    harness::Harness,
    spec::Spec,
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use sandbox_core::{Error, SandboxProvider};
use std::{process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinError,
};

/// How long the sandboxes of a case may take to end.
const CLEAN_UP: Duration = Duration::from_secs(60);

/// Runs the suite on one provider, with the arguments of the program, and prints what came out.
///
/// # Behavior
/// - A provider that cannot be made is a failure, whatever the arguments.
/// - Call it from `main` of a test with `harness = false`, outside of any runtime.
#[must_use]
pub fn run(harness: Harness) -> ExitCode {
    run_all([harness])
}

/// Runs the suite on several providers as one test. Give each [`Harness`] a name.
#[must_use]
pub fn run_all(harnesses: impl IntoIterator<Item = Harness>) -> ExitCode {
    let arguments = Arguments::from_args();
    match prepare(harnesses) {
        Ok((runtime, trials)) => {
            let code = libtest_mimic::run(&arguments, trials).exit_code();
            runtime.shutdown_timeout(Duration::from_secs(5));
            code
        }
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the only way to say so before there is a case"
)]
fn complain(error: &Error) {
    eprintln!("cannot start the suite: {}", described(error));
}

fn prepare(
    harnesses: impl IntoIterator<Item = Harness>,
) -> sandbox_core::Result<(Runtime, Vec<Trial>)> {
    let runtime = runtime()?;
    let mut trials = Vec::new();
    for harness in harnesses {
        let provider = runtime.block_on(harness.source.provider())?;
        let harness = Arc::new(harness);
        for spec in cases::all() {
            trials.push(trial(*spec, &harness, &provider, runtime.handle()));
        }
    }
    Ok((runtime, trials))
}

/// Several workers, so that a provider that blocks one does not stop the others, nor the deadlines.
fn runtime() -> sandbox_core::Result<Runtime> {
    let made = Builder::new_multi_thread()
        .worker_threads(8)
        .enable_all()
        .build();
    made.map_err(|error| {
        Error::new(
            sandbox_core::ErrorKind::Internal,
            "no runtime for the suite",
        )
        .with_source(error)
    })
}

fn trial(
    spec: Spec,
    harness: &Arc<Harness>,
    provider: &Arc<dyn SandboxProvider>,
    runtime: &Handle,
) -> Trial {
    let name = match harness.name.as_str() {
        "" => spec.name.to_owned(),
        prefix => format!("{prefix}::{}", spec.name),
    };
    // Also flagged, so that tools that ask for the list of ignored cases do not count them as passed.
    let lacks = spec.missing(&provider.capabilities()).is_some();
    let (harness, provider, runtime) = (Arc::clone(harness), Arc::clone(provider), runtime.clone());
    Trial::ignorable_test(name, move || complete(spec, harness, provider, &runtime))
        .with_ignored_flag(lacks)
}

/// Runs one case from a thread that is not the runtime's.
fn complete(
    spec: Spec,
    harness: Arc<Harness>,
    provider: Arc<dyn SandboxProvider>,
    runtime: &Handle,
) -> Result<Completion, Failed> {
    if let Some(need) = spec.missing(&provider.capabilities()) {
        let reason = format!("the provider lacks `{}`", need.name());
        return Ok(Completion::ignored_with(reason));
    }
    let deadline = harness.deadline;
    let case = Arc::new(Case::new(harness, provider));
    let ended = within(deadline, (spec.run)(Arc::clone(&case)), runtime);
    let cleaned = within(CLEAN_UP, async move { Ok(case.clean_up().await?) }, runtime);
    match (ended, cleaned) {
        (Err(Stop::Failed(message)), _) => Err(message.into()),
        (_, Err(Stop::Failed(message) | Stop::Ignored(message))) => {
            Err(format!("sandboxes were left behind: {message}").into())
        }
        (Err(Stop::Ignored(reason)), Ok(())) => Ok(Completion::ignored_with(reason)),
        (Ok(()), Ok(())) => Ok(Completion::Completed),
    }
}

/// Runs `future` as a task and gives it up after `deadline`, even where it blocks its thread.
fn within(
    deadline: Duration,
    future: impl Future<Output = Result> + Send + 'static,
    runtime: &Handle,
) -> Result {
    let task = runtime.spawn(future);
    let abort = task.abort_handle();
    let ended = runtime.block_on(async { tokio::time::timeout(deadline, task).await });
    match ended {
        Ok(joined) => joined.unwrap_or_else(|error| Err(Stop::Failed(panicked(error)))),
        Err(_) => {
            abort.abort();
            let message = format!("did not end within {deadline:?}");
            Err(Stop::Failed(message))
        }
    }
}

fn panicked(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else {
        return "the case was cancelled".into();
    };
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a message"))
}
