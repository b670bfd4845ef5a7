//! The programs that run in the guest, built as `cargo xtask test` builds them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{context::Context, test};

/// Crates whose programs the guest gets: tests start others of their own crate, too.
const CRATES: [&str; 3] = ["sandbox-agent", "sandbox-cli", "sandbox-local"];

/// Names by which the guest's scripts know some of them: crate, target, variable.
const NAMES: [(&str, &str, &str); 4] = [
    ("sandbox-cli", "sandbox", "SANDBOX"),
    ("sandbox-local", "it", "LOCAL_IT"),
    ("sandbox-local", "conformance", "LOCAL_CONFORMANCE"),
    ("sandbox-agent", "zygote", "AGENT_ZYGOTE"),
];

/// Programs that have been built.
#[derive(Debug)]
pub(super) struct Programs {
    built: Vec<Program>,
}

#[derive(Debug, PartialEq, Eq)]
struct Program {
    package: String,
    target: String,
    is_test: bool,
    path: PathBuf,
}

/// Builds the tests of the workspace and the command.
pub(super) fn build(context: &Context) -> Result<Programs> {
    let mut built = Vec::new();
    for arguments in [["test", "--no-run"], ["build", "--bins"]] {
        let output = context
            .cargo(arguments)
            .args(test::SELECTION)
            .arg("--message-format=json")
            .read()?;
        built.extend(output.lines().filter_map(program));
    }
    Ok(Programs { built })
}

impl Programs {
    /// Where they lie on this machine, and in the guest.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.built.iter().map(|program| program.path.as_path())
    }

    /// Assignments for a shell.
    pub(super) fn names(&self) -> Result<String> {
        let mut text = String::new();
        for (package, target, variable) in NAMES {
            let fits = |program: &&Program| program.package == package && program.target == target;
            // The command itself, and not the program of its unit tests.
            let is_test = package != "sandbox-cli";
            let mut all = self.built.iter().filter(fits);
            let program = all.find(|program| program.is_test == is_test);
            let program =
                program.with_context(|| format!("{package} has no program `{target}`"))?;
            text += &format!("export {variable}='{}'\n", program.path.display());
        }
        Ok(text)
    }
}

#[derive(Debug, Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

/// The program that a line of Cargo's messages tells of, if it is one for the guest.
fn program(line: &str) -> Option<Program> {
    let artifact: Artifact = serde_json::from_str(line).ok()?;
    let package = artifact.manifest_path.parent()?.file_name()?.to_str()?;
    CRATES.contains(&package).then_some(Program {
        package: package.to_owned(),
        target: artifact.target.name,
        is_test: artifact.profile.test,
        path: artifact.executable?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(package: &str, executable: Option<&str>) -> String {
        serde_json::json!({
            "reason": "compiler-artifact",
            "manifest_path": format!("/srv/crates/{package}/Cargo.toml"),
            "target": { "name": "it", "kind": ["test"] },
            "profile": { "test": true },
            "executable": executable,
        })
        .to_string()
    }

    #[test]
    fn programs_are_told_from_other_messages() {
        let program = |line: &str| super::program(line).map(|program| program.path);
        let path = Some(PathBuf::from("/srv/target/it-1"));
        assert_eq!(
            program(&message("sandbox-local", Some("/srv/target/it-1"))),
            path
        );
        assert_eq!(program(&message("sandbox-local", None)), None);
        assert_eq!(program(&message("sandbox-core", Some("/srv/x"))), None);
        assert_eq!(program("{\"reason\":\"build-finished\"}"), None);
        assert_eq!(program("warning: x"), None);
    }
}
