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
use std::{
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
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

/// Runs the suite on one provider as a part of a test, so many cases at a time. Most of them wait for something, so that
/// many more than there are processors take less time. Returns how many have passed; the others are about what the provider
/// lacks.
///
/// # Errors
/// The names of the cases that failed, and why, a line each; or why the provider could not be made.
pub fn check(harness: Harness, at_once: usize) -> Result<usize, String> {
    let specs: Vec<Spec> = cases::all().copied().collect();
    check_all(harness, &specs, at_once)
}

fn check_all(harness: Harness, specs: &[Spec], at_once: usize) -> Result<usize, String> {
    let said = |error| format!("cannot start the suite: {}", described(&error));
    let runtime = runtime().map_err(said)?;
    let provider = runtime.block_on(harness.source.provider()).map_err(said)?;
    let (harness, handle) = (Arc::new(harness), runtime.handle());
    let (next, passed, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::default());
    let work = || {
        while let Some(spec) = specs.get(next.fetch_add(1, Ordering::Relaxed)) {
            match complete(*spec, Arc::clone(&harness), Arc::clone(&provider), handle) {
                Ok(Completion::Completed) => drop(passed.fetch_add(1, Ordering::Relaxed)),
                Ok(Completion::Ignored { .. }) => {}
                Err(why) => {
                    let why = why.message().unwrap_or_default();
                    let mut failed: MutexGuard<'_, Vec<_>> =
                        failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.push(format!("{}: {why}", spec.name));
                }
            }
        }
    };
    thread::scope(|scope| (0..at_once).for_each(|_| drop(scope.spawn(work))));
    drop(provider);
    runtime.shutdown_timeout(Duration::from_secs(5));
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failed.is_empty() {
        Ok(passed.into_inner())
    } else {
        Err(failed.join("\n"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{failure::ensure, spec::Need};
    use futures_util::{TryStreamExt, future::BoxFuture};
    use sandbox_core::{
        CreateOptions, ErrorKind, ListOptions, SandboxInfo,
        fake::{FakeProvider, Fault},
    };
    use std::sync::mpsc;

    const SHORT: Duration = Duration::from_millis(200);

    type Run = fn(Arc<Case>) -> BoxFuture<'static, Result>;

    /// Runs one case on `fake`, and returns what came out and how many sandboxes live on.
    fn try_case(fake: &FakeProvider, needs: &'static [Need], run: Run) -> (String, usize) {
        try_within(Duration::from_secs(60), fake, needs, run)
    }

    fn try_within(
        deadline: Duration,
        fake: &FakeProvider,
        needs: &'static [Need],
        run: Run,
    ) -> (String, usize) {
        let runtime = runtime().unwrap();
        let provider: Arc<dyn SandboxProvider> = Arc::new(fake.clone());
        let harness = Harness::new(Arc::clone(&provider)).deadline(deadline);
        let name = "group::case";
        let spec = Spec { name, needs, run };
        let ended = complete(spec, Arc::new(harness), provider, runtime.handle());
        let text = match ended {
            Ok(Completion::Completed) => "passed".to_owned(),
            Ok(Completion::Ignored { reason }) => {
                format!("ignored: {}", reason.unwrap_or_default())
            }
            Err(failed) => format!("failed: {}", failed.message().unwrap_or_default()),
        };
        let list = fake
            .list(ListOptions::new())
            .try_collect::<Vec<SandboxInfo>>();
        (text, runtime.block_on(list).unwrap().len())
    }

    #[test]
    fn a_case_passes_and_its_sandboxes_are_killed() {
        let run: Run = |case| {
            Box::pin(async move {
                case.sandbox().await?;
                case.sandbox().await?;
                Ok(())
            })
        };
        let ended = try_case(&FakeProvider::new(), &[], run);
        assert_eq!(ended, ("passed".into(), 0));
    }

    #[test]
    fn a_case_that_fails_or_panics_kills_its_sandboxes() {
        let fail: Run = |case| {
            Box::pin(async move {
                case.sandbox().await?;
                ensure(false, "not so")
            })
        };
        let (text, left) = try_case(&FakeProvider::new(), &[], fail);
        assert!(text.starts_with("failed: not so"), "{text}");
        assert_eq!(left, 0);
        let panic: Run = |case| {
            Box::pin(async move {
                case.sandbox().await?;
                panic!("number {}", 5)
            })
        };
        let ended = try_case(&FakeProvider::new(), &[], panic);
        assert_eq!(ended, ("failed: panicked: number 5".into(), 0));
    }

    #[test]
    fn a_case_that_hangs_fails_by_its_deadline() {
        let hang: Run = |case| {
            Box::pin(async move {
                case.sandbox().await?;
                std::future::pending().await
            })
        };
        let ended = try_within(SHORT, &FakeProvider::new(), &[], hang);
        assert_eq!(ended, ("failed: did not end within 200ms".into(), 0));
    }

    #[test]
    fn a_case_that_blocks_its_thread_fails_by_its_deadline() {
        let block: Run = |case| {
            Box::pin(async move {
                case.sandbox().await?;
                let (sender, receiver) = mpsc::channel::<()>();
                // Much longer than the deadline, but the test ends.
                let _timeout = receiver.recv_timeout(Duration::from_secs(1));
                drop(sender);
                Ok(())
            })
        };
        let ended = try_within(SHORT, &FakeProvider::new(), &[], block);
        assert_eq!(ended, ("failed: did not end within 200ms".into(), 0));
    }

    #[test]
    fn what_the_provider_lacks_is_ignored_and_never_run() {
        let run: Run = |_| Box::pin(async { panic!("must not run") });
        let fake = FakeProvider::new();
        let ended = try_case(&fake, &[Need::Stdin, Need::Shell], run);
        assert_eq!(ended, ("ignored: the provider lacks `shell`".into(), 0));
        assert_eq!(fake.calls().len(), 1, "only the test's own list");
        let needs = &[Need::Shell];
        let name = "group::case";
        let provider: Arc<dyn SandboxProvider> = Arc::new(fake);
        let harness = Arc::new(Harness::new(Arc::clone(&provider)));
        let runtime = runtime().unwrap();
        let trial = trial(
            Spec { name, needs, run },
            &harness,
            &provider,
            runtime.handle(),
        );
        assert!(trial.has_ignored_flag());
        assert_eq!(trial.name(), "group::case");
    }

    #[test]
    fn an_option_that_is_not_supported_ignores_the_case() {
        let run: Run = |case| {
            Box::pin(async move {
                case.sandbox().await?;
                let options = CreateOptions::new().idle_timeout(Duration::from_secs(9));
                case.sandbox_with(options).await?;
                panic!("must not get here")
            })
        };
        let (text, left) = try_case(&FakeProvider::new(), &[], run);
        assert!(text.starts_with("ignored: "), "{text}");
        assert!(text.contains("an idle timeout is not supported"), "{text}");
        assert_eq!(left, 0);
    }

    #[test]
    fn a_sandbox_that_is_left_behind_fails_the_case() {
        let fake = FakeProvider::new();
        let away = Fault::Error(ErrorKind::Unavailable, "not now".into());
        fake.fault("kill", away);
        let run: Run = |case| {
            Box::pin(async move {
                case.sandbox().await?;
                Ok(())
            })
        };
        let (text, left) = try_case(&fake, &[], run);
        assert!(
            text.starts_with("failed: sandboxes were left behind"),
            "{text}"
        );
        assert_eq!(left, 1);
    }

    #[test]
    fn a_harness_may_have_a_name() {
        let harness = Harness::new(Arc::new(FakeProvider::new())).name("mine");
        let (_runtime, trials) = prepare([harness]).unwrap();
        assert!(
            trials
                .iter()
                .all(|trial| trial.name().starts_with("mine::"))
        );
    }

    #[test]
    fn a_provider_that_cannot_be_made_is_a_failure() {
        let factory = || async { Err(Error::unsupported("this machine")) };
        let error = prepare([Harness::from_factory(factory)]).err();
        assert_eq!(
            error.map(|error| error.kind()),
            Some(ErrorKind::Unsupported)
        );
    }

    #[test]
    fn as_a_part_of_a_test_it_says_what_failed_and_counts_the_rest() {
        let pass: Run = |_| Box::pin(async { Ok(()) });
        let fail: Run = |_| Box::pin(async { Err(Stop::Failed("on purpose".into())) });
        let spec = |name, needs, run| Spec { name, needs, run };
        let check = |specs: &[Spec]| {
            let harness = Harness::new(Arc::new(FakeProvider::new()));
            check_all(harness, specs, 4)
        };
        let good = [
            spec("a::one", &[], pass),
            spec("a::two", &[], pass),
            spec("a::lacking", &[Need::Shell], fail),
        ];
        assert_eq!(check(&good), Ok(2));
        let bad = [spec("a::bad", &[], fail), spec("a::worse", &[], fail)];
        let text = check(&[&good[..], &bad].concat()).unwrap_err();
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["a::bad: on purpose", "a::worse: on purpose"]);
    }
}
