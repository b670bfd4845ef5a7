//! `sandbox run`: a program in a new sandbox, which ends with it.

mod program;

use super::{
    create::{self, DEFAULT_LIFETIME},
    exec,
};
use crate::{
    args::RunArgs,
    language::Language,
    output::{self, Stop},
    provider,
    signals::Signals,
    transfer::{
        Progress,
        spec::{Extra, Place, name_of},
        upload::Upload,
    },
};
use anyhow::{Context, Result, bail};
use program::{detect, extra, here, read_program, require_room};
use sandbox::{
    Command, ExitStatus, Ownership, Sandbox, SandboxExt, SandboxPath, Stdin, WriteOptions,
};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What a lifetime that follows from `--timeout` leaves for the end.
const MARGIN: Duration = Duration::from_secs(30);

/// The code of a program for which time was up.
const TIMED_OUT: u8 = 124;

pub(crate) async fn run(state_dir: Option<&Path>, args: RunArgs) -> Result<u8> {
    // All that can be wrong here is found out before there is a sandbox.
    let job = Job::read(&args)?;
    let mut options = create::options(&args.sandbox)?.ownership(if args.keep {
        Ownership::Detached
    } else {
        Ownership::Owned
    });
    let started = Instant::now();
    let provider = provider::open_for(state_dir, &args.sandbox)?;
    let longest = provider.capabilities().max_lifetime;
    let lifetime = lifetime(args.sandbox.lifetime, args.timeout, longest)?;
    options = options.lifetime(lifetime);
    let mut signals = Signals::new()?;
    let sandbox = tokio::select! {
        made = create::make(provider.as_ref(), options, args.sandbox.verbose, started) => made?,
        signal = signals.next() => return Err(Stop::Signal(signal).into()),
    };
    let ended = tokio::select! {
        ended = job.perform(sandbox.as_ref(), args.keep) => ended,
        signal = signals.next(), if !args.keep => Err(Stop::Signal(signal).into()),
    };
    if args.keep {
        let id = sandbox.id();
        output::note(format!(
            "kept the sandbox {id}; `sandbox kill {id}` ends it"
        ));
    } else {
        end(sandbox.as_ref(), &mut signals).await;
    }
    if started.elapsed() >= lifetime && is_cut_off(&ended) {
        output::error(format!(
            "the sandbox's lifetime of {} was over; give it more with --lifetime",
            humantime::format_duration(lifetime)
        ));
        return Ok(TIMED_OUT);
    }
    let status = ended?;
    exec::explain(status, args.timeout);
    Ok(exec::code(status))
}

/// Ends the sandbox. If that fails or takes too long, it ends with us in any case.
async fn end(sandbox: &dyn Sandbox, signals: &mut Signals) {
    tokio::select! {
        killed = sandbox.kill() => if let Err(error) = killed {
            output::note(format!("the sandbox could not be ended in order: {error}"));
        },
        _ = signals.next() => {}
    }
}

/// The lifetime that was asked for, or one that is enough for the timeout that was asked for.
fn lifetime(
    lifetime: Option<Duration>,
    timeout: Option<Duration>,
    longest: Option<Duration>,
) -> Result<Duration> {
    let (None, Some(timeout)) = (lifetime, timeout) else {
        return Ok(lifetime.unwrap_or(DEFAULT_LIFETIME));
    };
    let enough = timeout.saturating_add(MARGIN);
    if let Some(longest) = longest.filter(|longest| enough > *longest) {
        bail!(
            "--timeout can be at most {}, for no sandbox lives longer than {}",
            output::spell(longest.saturating_sub(MARGIN)),
            output::spell(longest)
        );
    }
    Ok(DEFAULT_LIFETIME.max(enough))
}

/// Whether something other than the program or its user ended it.
fn is_cut_off(ended: &Result<ExitStatus>) -> bool {
    match ended {
        Ok(status) => *status == ExitStatus::Signal(9),
        Err(error) => !error.is::<Stop>(),
    }
}

/// A program with all it needs.
#[derive(Debug)]
struct Job {
    /// `None` if the program's first line says what runs it.
    language: Option<&'static Language>,
    name: String,
    contents: Vec<u8>,
    arguments: Vec<String>,
    /// What is in it comes along.
    directory: Option<PathBuf>,
    extras: Vec<Extra>,
    timeout: Option<Duration>,
    stdin: Stdin,
    tty: bool,
}

impl Job {
    fn read(args: &RunArgs) -> Result<Self> {
        let mut words = args.words.iter();
        let file = match args.code {
            Some(_) => None,
            None => words.next().map(Path::new),
        };
        let directory = args.dir.as_deref();
        let contents = match (&args.code, file) {
            (Some(code), _) => code.clone().into_bytes(),
            (None, Some(file)) => read_program(&here(directory, file)?)?,
            (None, None) => bail!("a program is missing: name a file, or use -c CODE"),
        };
        let file = file.filter(|file| *file != Path::new("-"));
        let named = args.lang.as_deref().and_then(Language::named);
        let language = detect(named, &contents, file)?;
        let own_name = match (file, directory) {
            (Some(file), Some(_)) => Some(file.as_os_str().to_owned()),
            (file, _) => file.map(name_of).transpose()?,
        };
        // A name that cannot be an argument of what runs the program is replaced.
        let name = match (own_name.map(OsString::into_string), language) {
            (Some(Ok(name)), _) => name,
            (_, Some(language)) => {
                format!(
                    "main.{}",
                    language.extensions.first().unwrap_or(&language.name)
                )
            }
            (_, None) => "main".to_owned(),
        };
        if let Some(directory) = directory.filter(|_| file.is_none()) {
            require_room(directory, &name)?;
        }
        let arguments = words
            .map(|word| word.to_str().map(str::to_owned))
            .collect::<Option<_>>()
            .context("the arguments of a program must be UTF-8")?;
        let extras = args
            .files
            .iter()
            .map(|text| extra(text, &name))
            .collect::<Result<_>>()?;
        let from_stdin = args.code.is_none() && file.is_none();
        Ok(Self {
            language,
            name,
            contents,
            arguments,
            directory: args.dir.clone(),
            extras,
            timeout: args.timeout,
            // What was the program cannot be its input too.
            stdin: if from_stdin {
                Stdin::Closed
            } else {
                Stdin::Open
            },
            tty: args.tty,
        })
    }

    /// Runs the program to its end. With `signals`, requests to end go to it, else to the caller.
    async fn perform(&self, sandbox: &dyn Sandbox, signals: bool) -> Result<ExitStatus> {
        self.copy(sandbox).await?;
        let status = exec::perform(sandbox, self.command(), self.tty, signals).await?;
        if status == ExitStatus::Code(127)
            && let Some(language) = self.language
            && !can_run(sandbox, language).await
        {
            output::error(format!("nothing in the sandbox runs {}", language.name));
            output::hint(format!(
                "a sandbox has the programs of this machine, unless its template says otherwise; \
                 give this machine what is missing: {}",
                language.remedy
            ));
        }
        Ok(status)
    }

    /// Puts the program and what it needs into the user's home.
    async fn copy(&self, sandbox: &dyn Sandbox) -> Result<()> {
        let mut upload = Upload {
            sandbox,
            user: None,
            progress: Progress::hidden(),
        };
        if let Some(directory) = &self.directory {
            upload.progress = Progress::shown();
            let report = upload
                .copy(&directory.join("."), &Place::parse(".")?)
                .await?;
            report.note_skipped();
            upload.progress = Progress::hidden();
        }
        for extra in &self.extras {
            let place = Place::parse(&extra.destination)?;
            let report = upload.copy(&extra.source, &place).await?;
            report.note_skipped();
        }
        // Last, so that it is what runs, whatever came along.
        let path = SandboxPath::new(&self.name)?;
        let options = WriteOptions::new().mode(0o755_u32);
        sandbox
            .files()
            .write(&path, self.contents.clone().into(), options)
            .await
            .context("cannot copy the program into the sandbox")
    }

    fn command(&self) -> Command {
        // A leading dash would make an option of it, and without a slash PATH would be searched.
        let file = format!("./{}", self.name);
        let mut command = match self.language {
            Some(language) => language.command(&file),
            None => Command::new(file),
        };
        command = command.args(&self.arguments).stdin(self.stdin.clone());
        command.timeout = self.timeout;
        command
    }
}

async fn can_run(sandbox: &dyn Sandbox, language: &Language) -> bool {
    match language.probe() {
        // If it cannot be found out, the program's own words must do.
        Some(probe) => sandbox
            .exec(probe)
            .await
            .map_or(true, |output| output.status.success()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_enough_for_the_timeout_unless_said() {
        let seconds = Duration::from_secs;
        let lifetime = |asked: Option<u64>, timeout: Option<u64>| {
            let lifetime = lifetime(
                asked.map(seconds),
                timeout.map(seconds),
                Some(seconds(9000)),
            );
            lifetime.map(|time| time.as_secs()).ok()
        };
        assert_eq!(lifetime(None, None), Some(300));
        assert_eq!(lifetime(None, Some(10)), Some(300));
        assert_eq!(lifetime(None, Some(3600)), Some(3630));
        assert_eq!(lifetime(None, Some(8970)), Some(9000));
        assert_eq!(lifetime(None, Some(8971)), None);
        assert_eq!(lifetime(Some(5), Some(3600)), Some(5));
        assert_eq!(lifetime(Some(5), Some(9000)), Some(5));
    }
}
