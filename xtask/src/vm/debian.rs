//! A kernel and a fresh file tree from the Debian archive that this machine uses. The machine's own packages are left
//! alone: what is fetched is unpacked below the target directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{command::Command, context::Context, report};

/// The kernel for virtual machines; its dependency is the one of the present version.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Name of this machine's release, if it is one of Debian.
pub(super) fn codename() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_matches('"').to_owned())
    };
    (value("ID=")? == "debian").then(|| value("VERSION_CODENAME="))?
}

/// A release of Debian and where its archive is.
#[derive(Debug)]
pub(super) struct Release {
    mirror: String,
    codename: String,
}

/// A kernel that has been unpacked.
#[derive(Debug)]
pub(super) struct Kernel(PathBuf);

impl Release {
    /// Finds the archive in the machine's own settings.
    pub(super) fn new(context: &Context, codename: String) -> Result<Self> {
        let find = || -> Result<Option<String>> {
            let format = "$(CREATED_BY) $(CODENAME) $(COMPONENT) $(REPO_URI)";
            let targets = context
                .command("apt-get")
                .args(["indextargets", "--format", format])
                .read()?;
            let wanted = format!("Packages {codename} main ");
            let mirror = targets.lines().find_map(|line| line.strip_prefix(&wanted));
            Ok(mirror.map(str::to_owned))
        };
        let mirror = match find()? {
            Some(mirror) => mirror,
            None => {
                context.command("apt-get").arg("update").run()?;
                find()?.with_context(|| format!("apt has no archive of {codename}"))?
            }
        };
        Ok(Self { mirror, codename })
    }

    /// The kernel of the release, or of its backports.
    pub(super) fn kernel(
        &self,
        context: &Context,
        directory: &Path,
        backports: bool,
    ) -> Result<Kernel> {
        let suffix = if backports { "-backports" } else { "" };
        let suite = format!("{}{suffix}", self.codename);
        let place = directory.join(format!("kernel-{suite}"));
        if !place.exists() {
            report::note(&format!("fetching the kernel of {suite}"));
            let new = empty(directory.join("kernel.new"))?;
            self.fetch_kernel(context, &suite, &new)?;
            fs::rename(new, &place)?;
        }
        Ok(Kernel(place))
    }

    /// Downloads by apt, which knows proxies and checks signatures, with settings of its own.
    fn fetch_kernel(&self, context: &Context, suite: &str, place: &Path) -> Result<()> {
        let sources = place.join("sources.list");
        fs::write(&sources, format!("deb {} {suite} main\n", self.mirror))?;
        let settings = [
            format!("Dir::Etc::SourceList={}", sources.display()),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!(
                "Dir::State::Lists={}",
                empty(place.join("lists"))?.display()
            ),
            format!("Dir::Cache={}", empty(place.join("cache"))?.display()),
            "APT::Sandbox::User=root".to_owned(),
        ];
        let apt = |program: &str| -> Command {
            let command = context.command(program).within(place);
            settings
                .iter()
                .fold(command, |command, setting| command.args(["-o", setting]))
        };
        apt("apt-get").arg("update").run()?;
        let shown = apt("apt-cache").args(["show", KERNEL]).read()?;
        let package = dependency(&shown).context("the archive has no kernel")?;
        apt("apt-get").args(["download", package]).run()?;
        let mut files = fs::read_dir(place)?
            .filter_map(Result::ok)
            .map(|entry| entry.path());
        let file = files.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        let file = file.context("apt has downloaded nothing")?;
        context
            .command("dpkg-deb")
            .arg("--extract")
            .args([&file, place])
            .run()?;
        fs::remove_file(file)?;
        fs::remove_dir_all(place.join("lists"))?;
        fs::remove_dir_all(place.join("cache"))?;
        Ok(())
    }

    /// A fresh Debian with Python, what lists processes and what maps ids, the same release as this machine, so that programs
    /// built here run there.
    pub(super) fn base(&self, context: &Context, directory: &Path) -> Result<PathBuf> {
        let place = directory.join(format!("debian-{}-procps-uidmap", self.codename));
        if !place.exists() {
            report::note(&format!("installing a fresh Debian {}", self.codename));
            let new = empty(directory.join("debian.new"))?;
            context
                .command("debootstrap")
                .args([
                    "--variant=minbase",
                    "--include=python3,procps,uidmap",
                    &self.codename,
                ])
                .arg(&new)
                .arg(&self.mirror)
                .run()?;
            fs::rename(new, &place)?;
        }
        Ok(place)
    }
}

impl Kernel {
    /// What a boot loader loads.
    pub(super) fn image(&self) -> Result<PathBuf> {
        Ok(self
            .0
            .join("boot")
            .join(format!("vmlinuz-{}", self.version()?)))
    }

    /// Its version, as `uname -r` prints it.
    pub(super) fn version(&self) -> Result<String> {
        let modules = fs::read_dir(self.0.join("lib/modules"))?;
        let names = modules
            .filter_map(Result::ok)
            .map(|entry| entry.file_name());
        let name = names.max().context("the kernel has no modules")?;
        Ok(name.to_string_lossy().into_owned())
    }

    /// The file of a module, compressed or not; `None` if it is built in or there is none.
    pub(super) fn module(&self, context: &Context, name: &str) -> Result<Option<PathBuf>> {
        let found = context
            .command("find")
            .arg(self.0.join("lib/modules"))
            .args(["-name", &format!("{name}.ko*")])
            .read()?;
        Ok(found.lines().next().map(PathBuf::from))
    }
}

/// Makes a directory, or makes it empty.
pub(super) fn empty(path: PathBuf) -> Result<PathBuf> {
    if path.exists() {
        fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
    }
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// The first package that the shown one depends on.
fn dependency(shown: &str) -> Option<&str> {
    let line = shown
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "))?;
    line.split([' ', ',']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_its_metapackage_depends_on() {
        let shown = "Package: linux-image-cloud-amd64\nVersion: 6.1.1-1\n\
                     Depends: linux-image-6.1.0-9-cloud-amd64 (= 6.1.1-1)\n\n";
        assert_eq!(dependency(shown), Some("linux-image-6.1.0-9-cloud-amd64"));
        assert_eq!(dependency("N: Unable to locate package\n"), None);
    }
}
