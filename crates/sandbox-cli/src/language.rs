//! The languages that `run` knows: how a file shows its own, and what runs it.

use sandbox::Command;
use std::path::Path;

/// A language.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Language {
    /// What `--lang` calls it.
    pub(crate) name: &'static str,
    /// What else `--lang` calls it.
    pub(crate) aliases: &'static [&'static str],
    /// Endings of file names; the first is given to programs without a file.
    pub(crate) extensions: &'static [&'static str],
    /// Programs in a first line such as `#!/usr/bin/env python3`.
    interpreters: &'static [&'static str],
    /// What runs a file.
    runner: Runner,
    /// What to do where nothing runs it.
    pub(crate) remedy: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
enum Runner {
    /// A program and its first arguments; the file follows.
    Program(&'static str, &'static [&'static str]),
    /// A shell script that gets the file and its arguments.
    Script(&'static str),
}

/// Takes the first runner of TypeScript that is there. Node learned it with 22.6, and says whether it can.
const TYPESCRIPT: &str = r#"
for runner in deno bun tsx; do
    command -v "$runner" >/dev/null 2>&1 || continue
    case "$runner" in
        deno) exec deno run --allow-all "$@" ;;
        bun) exec bun run "$@" ;;
        tsx) exec tsx "$@" ;;
    esac
done
if node --experimental-strip-types -e 'process.exit(process.features.typescript ? 0 : 1)' >/dev/null 2>&1; then
    exec node --no-warnings --experimental-strip-types "$@"
fi
exit 127
"#;

/// All of them.
pub(crate) const ALL: &[Language] = &[
    Language {
        name: "python",
        aliases: &["python3", "py"],
        extensions: &["py", "pyw"],
        // `uv` fetches what a program needs, and a sandbox has no network.
        interpreters: &["python3", "python", "uv"],
        // Without -u, output to a pipe would come only at the end.
        runner: Runner::Program("python3", &["-u"]),
        remedy: "`apt-get install python3`",
    },
    Language {
        name: "javascript",
        aliases: &["js", "node", "nodejs"],
        extensions: &["js", "mjs", "cjs"],
        interpreters: &["node", "nodejs"],
        runner: Runner::Program("node", &[]),
        remedy: "`apt-get install nodejs`",
    },
    Language {
        name: "typescript",
        aliases: &["ts"],
        extensions: &["ts", "mts", "cts"],
        interpreters: &["tsx", "ts-node", "deno", "bun"],
        runner: Runner::Script(TYPESCRIPT),
        remedy: "install Deno, Bun, tsx, or Node.js 22.6 or later",
    },
    Language {
        name: "bash",
        aliases: &[],
        extensions: &["sh", "bash"],
        interpreters: &["bash"],
        runner: Runner::Program("bash", &[]),
        remedy: "`apt-get install bash`",
    },
    Language {
        name: "sh",
        aliases: &["shell", "dash"],
        extensions: &[],
        interpreters: &["sh", "dash", "ash"],
        runner: Runner::Program("sh", &[]),
        remedy: "`apt-get install dash`",
    },
    Language {
        name: "ruby",
        aliases: &["rb"],
        extensions: &["rb"],
        interpreters: &["ruby"],
        runner: Runner::Program("ruby", &[]),
        remedy: "`apt-get install ruby`",
    },
    Language {
        name: "perl",
        aliases: &["pl"],
        extensions: &["pl", "pm"],
        interpreters: &["perl"],
        runner: Runner::Program("perl", &[]),
        remedy: "`apt-get install perl`",
    },
    Language {
        name: "php",
        aliases: &[],
        extensions: &["php"],
        interpreters: &["php"],
        runner: Runner::Program("php", &[]),
        remedy: "`apt-get install php-cli`",
    },
    Language {
        name: "lua",
        aliases: &[],
        extensions: &["lua"],
        interpreters: &["lua", "luajit"],
        runner: Runner::Program("lua", &[]),
        remedy: "`apt-get install lua5.4`",
    },
    Language {
        name: "r",
        aliases: &["rscript"],
        extensions: &["r"],
        interpreters: &["Rscript"],
        runner: Runner::Program("Rscript", &[]),
        remedy: "`apt-get install r-base-core`",
    },
];

/// The language of programs that do not say theirs.
pub(crate) const DEFAULT: &Language = &ALL[0];

impl Language {
    /// The language of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        ALL.iter()
            .find(|language| language.name == name || language.aliases.contains(&name))
    }

    /// The language of a first line that names an interpreter.
    pub(crate) fn of_shebang(contents: &[u8]) -> Option<&'static Self> {
        let interpreter = interpreter(contents)?;
        ALL.iter()
            .find(|language| language.interpreters.contains(&interpreter.as_str()))
    }

    /// The language of a file name.
    pub(crate) fn of_name(path: &Path) -> Option<&'static Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        ALL.iter()
            .find(|language| language.extensions.contains(&extension.as_str()))
    }

    /// What runs `file` of the sandbox.
    pub(crate) fn command(&self, file: &str) -> Command {
        match self.runner {
            Runner::Program(program, first) => Command::new(program).args(first.to_vec()).arg(file),
            Runner::Script(script) => Command::shell(script).arg(file),
        }
    }

    /// Ends with 0 in a sandbox that can run this language; `None` if 127 always means that it cannot.
    pub(crate) fn probe(&self) -> Option<Command> {
        match self.runner {
            Runner::Program(program, _) => {
                Some(Command::shell("command -v \"$1\" >/dev/null").arg(program))
            }
            Runner::Script(_) => None,
        }
    }
}

/// Whether the first line names an interpreter, known or not.
pub(crate) fn has_shebang(contents: &[u8]) -> bool {
    interpreter(contents).is_some()
}

/// The interpreter's name without directories and version: `python3` of `#!/usr/bin/env -S python3.11 -u`.
fn interpreter(contents: &[u8]) -> Option<String> {
    let line = contents.strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line.get(..256).unwrap_or(line)).ok()?;
    let mut words = line.split_ascii_whitespace();
    let mut word = words.next()?;
    if base(word) == "env" {
        word = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
    }
    let name = base(word);
    Some(match name.split_once('.') {
        Some((stem, minor)) if minor.bytes().all(|byte| byte.is_ascii_digit()) => stem.to_owned(),
        _ => name.to_owned(),
    })
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shebang(line: &str) -> Option<&'static str> {
        Language::of_shebang(line.as_bytes()).map(|language| language.name)
    }

    #[test]
    fn first_lines_name_their_language() {
        assert_eq!(shebang("#!/usr/bin/python3\nprint()"), Some("python"));
        assert_eq!(shebang("#!/usr/bin/env -S python3.11 -u"), Some("python"));
        assert_eq!(shebang("#! /bin/sh -e\n"), Some("sh"));
        assert_eq!(shebang("#!/usr/bin/env A=1 node\r\n"), Some("javascript"));
        assert_eq!(shebang("#!/usr/bin/env"), None);
        assert_eq!(shebang("#!"), None);
        assert_eq!(shebang("#!/usr/bin/awk -f"), None);
        assert!(has_shebang(b"#!/usr/bin/awk -f"));
        assert!(!has_shebang(b"print('#!')"));
    }

    #[test]
    fn file_names_show_their_language() {
        let name = |path: &str| Language::of_name(Path::new(path)).map(|language| language.name);
        assert_eq!(name("a/b.py"), Some("python"));
        assert_eq!(name("x.tar.js"), Some("javascript"));
        assert_eq!(name("x.sh"), Some("bash"));
        assert_eq!(name("py"), None);
        assert_eq!(name(".py"), None);
        assert_eq!(name("x.exe"), None);
    }

    #[test]
    fn no_two_languages_share_a_name_or_ending() {
        let names = ALL
            .iter()
            .flat_map(|l| [l.name].into_iter().chain(l.aliases.iter().copied()));
        let endings = ALL.iter().flat_map(|l| l.extensions.iter().copied());
        for list in [names.collect::<Vec<_>>(), endings.collect()] {
            let mut unique = list.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), list.len());
        }
    }

    proptest! {
        #[test]
        fn no_first_line_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Language::of_shebang(&bytes);
            let mut line = b"#!".to_vec();
            line.extend(bytes);
            let _ = Language::of_shebang(&line);
        }
    }
}
