//! What language runtimes that not every machine has make of their sandbox's limits. What is missing is shown as ignored.
//!
//! Needs root, like the provider's other tests.

use libtest_mimic::{Arguments, Failed, Trial};
use sandbox_core::prelude::*;
use sandbox_local::LocalProvider;
use std::{error::Error, fs, path::Path};

/// A runtime, a script for the shell, and what it prints in half a processor and 768 MiB.
const RUNTIMES: [(&str, &str, &str); 2] = [
    (
        "node",
        "node -e \"const os = require('os'); console.log(os.availableParallelism(), os.cpus().length, \
         os.totalmem() / 1048576)\"",
        "1 1 768\n",
    ),
    (
        "java",
        "echo 'class A { public static void main(String[] a) { \
         System.out.println(Runtime.getRuntime().availableProcessors()); } }' > A.java; java A.java",
        "1\n",
    ),
];

#[tokio::main]
async fn look(script: &str, expected: &str) -> Result<(), Box<dyn Error>> {
    let state = tempfile::tempdir()?;
    let templates = Path::new(env!("CARGO_TARGET_TMPDIR")).join("templates");
    fs::create_dir_all(&templates)?;
    std::os::unix::fs::symlink(templates, state.path().join("templates"))?;
    let provider = LocalProvider::builder().state_dir(state.path()).build()?;
    let limits = Limits::new().memory(768 << 20).cpus(0.5);
    let sandbox = provider.create(CreateOptions::new().limits(limits)).await?;
    let output = sandbox.exec(Command::shell(script)).await?;
    let (text, complaint) = (output.stdout_text(), output.stderr_text());
    if text != expected {
        return Err(format!("{text:?} and {complaint:?} instead of {expected:?}").into());
    }
    Ok(())
}

fn main() {
    let trials = RUNTIMES.map(|(runtime, script, expected)| {
        // What is not in `/usr` no sandbox sees.
        let is_missing = !Path::new("/usr/bin").join(runtime).exists();
        let run = move || look(script, expected).map_err(|error| Failed::from(error.to_string()));
        Trial::test(format!("{runtime}_sees_its_limits"), run).with_ignored_flag(is_missing)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit()
}
