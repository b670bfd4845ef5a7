//! The command line of `sudo`: what is meant by it, and which variables the command gets.

use sandbox_agent::protocol::Blob;

/// How to use it.
pub(super) const USAGE: &str =
    "usage: sudo [-nEHSkK] [-u user|#uid] [--preserve-env=list] [VAR=value ...] command [arg ...]
       sudo [-nEHS] [-u user|#uid] [-i | -s] [VAR=value ...] [command [arg ...]]
       sudo -v | -k | -K | -h | -V";

/// Variables of the caller that the command always gets; those with a `*` stand for all that start so.
const KEPT: [&[u8]; 7] = [
    b"TERM",
    b"COLORTERM",
    b"LANG",
    b"LANGUAGE",
    b"LC_*",
    b"TZ",
    b"NO_COLOR",
];

/// Variables that are never the caller's, even if all are to be kept: they belong to the new user.
const OWN: [&[u8]; 5] = [b"PATH", b"USER", b"LOGNAME", b"MAIL", b"SUDO_*"];

/// A name and its value.
pub(super) type Variable = (Vec<u8>, Vec<u8>);

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Run something.
    Run(Invocation),
    /// `-v`: only find out whether it would work.
    Validate,
    /// `-k`: forget a password, of which there is none.
    Nothing,
    /// `-h`.
    Help,
    /// `-V`.
    Version,
}

/// What is to be run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Invocation {
    /// Name or `#uid`; `None` is root.
    pub(super) user: Option<String>,
    /// The command and its arguments.
    pub(super) command: Vec<Vec<u8>>,
    /// A shell runs the command, or is the command.
    pub(super) shell: Option<Shell>,
    /// `VAR=value` before the command.
    assignments: Vec<Variable>,
    /// `-E`.
    keep_all: bool,
    /// `--preserve-env=list`.
    keep: Vec<Vec<u8>>,
    /// `-H`.
    own_home: bool,
}

/// Which shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shell {
    /// `-s`: the caller's.
    Caller,
    /// `-i`: the target's, as after a login.
    Login,
}

/// Reads a command line, without the program's name.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(arguments: &[Vec<u8>]) -> Result<Parsed, String> {
    let mut parser = Parser {
        rest: arguments,
        invocation: Invocation::default(),
        special: None,
    };
    while parser.option()? {}
    let Parser {
        mut rest,
        mut invocation,
        special,
    } = parser;
    while let Some((first, others)) = rest.split_first()
        && let Some(variable) = assignment(first)
    {
        invocation.assignments.push(variable);
        rest = others;
    }
    invocation.command = rest.to_vec();
    if invocation
        .command
        .iter()
        .chain(&invocation.keep)
        .any(|text| text.contains(&0))
    {
        return Err("an argument holds a NUL byte".into());
    }
    match special {
        Some(special @ (Parsed::Help | Parsed::Version)) => Ok(special),
        Some(special) if invocation.command.is_empty() && invocation.shell.is_none() => Ok(special),
        // `-k` with a command ignores the cached password for once; there is none.
        Some(Parsed::Nothing) | None
            if !invocation.command.is_empty() || invocation.shell.is_some() =>
        {
            Ok(Parsed::Run(invocation))
        }
        Some(_) => Err("-v takes no command".into()),
        None => Err("a command is missing".into()),
    }
}

struct Parser<'a> {
    rest: &'a [Vec<u8>],
    invocation: Invocation,
    /// Set by options that take no command.
    special: Option<Parsed>,
}

impl Parser<'_> {
    /// Takes one option. `false`: there is none left.
    fn option(&mut self) -> Result<bool, String> {
        let Some((first, rest)) = self.rest.split_first() else {
            return Ok(false);
        };
        let Some(option) = first.strip_prefix(b"-").filter(|option| !option.is_empty()) else {
            return Ok(false);
        };
        self.rest = rest;
        if let Some(long) = option.strip_prefix(b"-") {
            return self.long(long);
        }
        let mut letters = option;
        while let Some((letter, following)) = letters.split_first() {
            letters = following;
            match letter {
                b'u' => {
                    let attached = std::mem::take(&mut letters);
                    let user = if attached.is_empty() {
                        self.value("-u")?
                    } else {
                        attached.to_vec()
                    };
                    self.invocation.user = Some(user_name(user)?);
                }
                b'p' => {
                    if std::mem::take(&mut letters).is_empty() {
                        self.value("-p")?;
                    }
                }
                letter => self.flag(*letter)?,
            }
        }
        Ok(true)
    }

    fn flag(&mut self, letter: u8) -> Result<(), String> {
        match letter {
            // There is no password to ask for, from wherever it would come.
            b'n' | b'S' | b'A' => {}
            b'E' => self.invocation.keep_all = true,
            b'H' => self.invocation.own_home = true,
            b'i' => self.invocation.shell = Some(Shell::Login),
            b's' => self.invocation.shell = Some(Shell::Caller),
            b'k' | b'K' => self.special = Some(Parsed::Nothing),
            b'v' => self.special = Some(Parsed::Validate),
            b'h' => self.special = Some(Parsed::Help),
            b'V' => self.special = Some(Parsed::Version),
            other => {
                return Err(format!(
                    "option -{} is not supported here",
                    other.escape_ascii()
                ));
            }
        }
        Ok(())
    }

    fn long(&mut self, option: &[u8]) -> Result<bool, String> {
        let (name, value) = match option.iter().position(|byte| *byte == b'=') {
            Some(at) => (&option[..at], Some(option[at + 1..].to_vec())),
            None => (option, None),
        };
        let letter = match (name, value) {
            (b"", None) => return Ok(false),
            (b"user", value) => {
                let user = value.map_or_else(|| self.value("--user"), Ok)?;
                self.invocation.user = Some(user_name(user)?);
                return Ok(true);
            }
            (b"prompt", value) => {
                value.map_or_else(|| self.value("--prompt"), Ok)?;
                return Ok(true);
            }
            (b"preserve-env", Some(list)) => {
                self.invocation
                    .keep
                    .extend(list.split(|byte| *byte == b',').map(<[u8]>::to_vec));
                return Ok(true);
            }
            (b"preserve-env", None) => b'E',
            (b"non-interactive", None) => b'n',
            (b"set-home", None) => b'H',
            (b"stdin", None) => b'S',
            (b"askpass", None) => b'A',
            (b"login", None) => b'i',
            (b"shell", None) => b's',
            (b"reset-timestamp", None) => b'k',
            (b"remove-timestamp", None) => b'K',
            (b"validate", None) => b'v',
            (b"help", None) => b'h',
            (b"version", None) => b'V',
            _ => {
                return Err(format!(
                    "option --{} is not supported here",
                    option.escape_ascii()
                ));
            }
        };
        self.flag(letter)?;
        Ok(true)
    }

    fn value(&mut self, option: &str) -> Result<Vec<u8>, String> {
        let (first, rest) = self
            .rest
            .split_first()
            .ok_or_else(|| format!("option {option} needs a value"))?;
        self.rest = rest;
        Ok(first.clone())
    }
}

fn user_name(name: Vec<u8>) -> Result<String, String> {
    match String::from_utf8(name) {
        Ok(name) if !name.is_empty() => Ok(name),
        _ => Err("the user's name is not one".into()),
    }
}

/// Splits `VAR=value`.
fn assignment(argument: &[u8]) -> Option<Variable> {
    let at = argument
        .iter()
        .position(|byte| *byte == b'=')
        .filter(|at| *at > 0)?;
    Some((argument[..at].to_vec(), argument[at + 1..].to_vec()))
}

impl Invocation {
    /// Which of the caller's variables the command gets, and those given on the command line.
    pub(super) fn environment(&self, caller: impl Iterator<Item = Variable>) -> Vec<(Blob, Blob)> {
        let own_home = self.own_home || self.shell == Some(Shell::Login);
        let keeps = |name: &[u8]| {
            let listed = self.keep.iter().any(|kept| kept == name);
            let all = self.keep_all && !matches(&OWN, name) && !(own_home && name == b"HOME");
            !name.is_empty() && (matches(&KEPT, name) || listed || all)
        };
        let kept = caller.filter(|(name, _)| keeps(name));
        kept.chain(self.assignments.iter().cloned())
            .map(|(name, value)| (Blob(name), Blob(value)))
            .collect()
    }

    /// The program and arguments to be run, if the shell to be asked for is `shell`.
    pub(super) fn program(&self, shell: Vec<u8>) -> Vec<Blob> {
        let Some(kind) = self.shell else {
            return self.command.iter().cloned().map(Blob).collect();
        };
        let mut program = vec![Blob(shell)];
        if kind == Shell::Login {
            program.push("-l".into());
        }
        if !self.command.is_empty() {
            let words: Vec<_> = self.command.iter().map(|word| quoted(word)).collect();
            program.extend(["-c".into(), Blob(words.join(&b' '))]);
        }
        program
    }
}

fn matches(patterns: &[&[u8]], name: &[u8]) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix(b"*") {
            Some(start) => name.starts_with(start),
            None => *pattern == name,
        })
}

/// Quotes a word for a shell as sudo does: so that it stays one word, but `$VAR` is what the shell makes of it.
fn quoted(word: &[u8]) -> Vec<u8> {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"_-$".contains(&byte) || !byte.is_ascii();
    let mut quoted = Vec::new();
    for byte in word {
        match byte {
            // A backslash before it would join the lines.
            b'\n' => quoted.extend_from_slice(b"'\n'"),
            byte if plain(*byte) => quoted.push(*byte),
            byte => quoted.extend_from_slice(&[b'\\', *byte]),
        }
    }
    if quoted.is_empty() {
        b"''".to_vec()
    } else {
        quoted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &[&str]) -> Vec<Vec<u8>> {
        line.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn run(line: &[&str]) -> Invocation {
        match parse(&words(line)) {
            Ok(Parsed::Run(invocation)) => invocation,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn environment(line: &[&str]) -> Vec<String> {
        let caller = [
            "PATH=/bin",
            "HOME=/home/user",
            "TERM=xterm",
            "LC_ALL=C",
            "SECRET=1",
            "USER=user",
            "SUDO_UID=7",
        ];
        let caller = caller
            .iter()
            .filter_map(|variable| assignment(variable.as_bytes()));
        let text =
            |(name, value): (Blob, Blob)| String::from_utf8([name.0, value.0].join(&b'=')).unwrap();
        run(line)
            .environment(caller)
            .into_iter()
            .map(text)
            .collect()
    }

    #[test]
    fn options_end_where_the_command_starts() {
        assert_eq!(run(&["id", "-u"]).command, words(&["id", "-u"]));
        assert_eq!(
            run(&["-nE", "--", "-odd", "--"]).command,
            words(&["-odd", "--"])
        );
        assert_eq!(
            run(&["-n", "A=1", "B=", "env", "C=3"]).command,
            words(&["env", "C=3"])
        );
        assert_eq!(run(&["-", "x"]).command, words(&["-", "x"]));
        assert_eq!(run(&["-k", "true"]).command, words(&["true"]));
        assert_eq!(run(&["-p", "prompt", "true"]).command, words(&["true"]));
    }

    #[test]
    fn the_user_is_found_in_every_spelling() {
        let lines: [&[&str]; 6] = [
            &["-u", "ann", "id"],
            &["-uann", "id"],
            &["-nuann", "id"],
            &["-nu", "ann", "id"],
            &["--user", "ann", "id"],
            &["--user=ann", "id"],
        ];
        for line in lines {
            assert_eq!(run(line).user.as_deref(), Some("ann"), "{line:?}");
        }
        assert_eq!(run(&["-u", "#1000", "id"]).user.as_deref(), Some("#1000"));
        assert_eq!(run(&["id"]).user, None);
    }

    #[test]
    fn what_takes_no_command() {
        for (line, want) in [
            ("-v", Parsed::Validate),
            ("--validate", Parsed::Validate),
            ("-nv", Parsed::Validate),
            ("-k", Parsed::Nothing),
            ("-K", Parsed::Nothing),
            ("-h", Parsed::Help),
            ("--version", Parsed::Version),
        ] {
            assert_eq!(parse(&words(&[line])), Ok(want));
        }
        assert_eq!(parse(&words(&["-h", "id"])), Ok(Parsed::Help));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, want) in [
            (&[][..], "a command is missing"),
            (&["-n"], "a command is missing"),
            (&["A=1"], "a command is missing"),
            (&["-v", "id"], "-v takes no command"),
            (&["-u"], "option -u needs a value"),
            (&["-u", "", "id"], "the user's name is not one"),
            (&["-Z", "id"], "option -Z is not supported here"),
            (&["-nZ", "id"], "option -Z is not supported here"),
            (
                &["--nonsense=1", "id"],
                "option --nonsense=1 is not supported here",
            ),
            (&["--login=1"], "option --login=1 is not supported here"),
            (&["a\0b"], "an argument holds a NUL byte"),
        ] {
            assert_eq!(parse(&words(line)), Err(want.into()), "{line:?}");
        }
    }

    #[test]
    fn only_some_variables_are_kept() {
        assert_eq!(environment(&["id"]), ["TERM=xterm", "LC_ALL=C"]);
        assert_eq!(
            environment(&["A=1", "PATH=/x", "id"]),
            ["TERM=xterm", "LC_ALL=C", "A=1", "PATH=/x"]
        );
        assert_eq!(
            environment(&["-E", "id"]),
            ["HOME=/home/user", "TERM=xterm", "LC_ALL=C", "SECRET=1"]
        );
        assert_eq!(
            environment(&["-EH", "id"]),
            ["TERM=xterm", "LC_ALL=C", "SECRET=1"]
        );
        assert_eq!(
            environment(&["-Ei"]),
            ["TERM=xterm", "LC_ALL=C", "SECRET=1"]
        );
        assert_eq!(
            environment(&["--preserve-env=SECRET,NONE", "id"]),
            ["TERM=xterm", "LC_ALL=C", "SECRET=1"]
        );
    }

    #[test]
    fn shells_get_one_command() {
        let program = |line: &[&str]| -> Vec<String> {
            let blobs = run(line).program(b"/bin/sh".to_vec());
            blobs
                .into_iter()
                .map(|blob| String::from_utf8(blob.0).unwrap())
                .collect()
        };
        assert_eq!(program(&["echo", "a b"]), ["echo", "a b"]);
        assert_eq!(program(&["-s"]), ["/bin/sh"]);
        assert_eq!(program(&["-i"]), ["/bin/sh", "-l"]);
        assert_eq!(
            program(&["-s", "echo", "a b", "$HOME", ""]),
            ["/bin/sh", "-c", "echo a\\ b $HOME ''"]
        );
        assert_eq!(
            program(&["-i", "id", "-u;"]),
            ["/bin/sh", "-l", "-c", "id -u\\;"]
        );
    }

    proptest! {
        #[test]
        fn any_command_line_is_read(line: Vec<Vec<u8>>) {
            if let Ok(Parsed::Run(invocation)) = parse(&line) {
                prop_assert!(!invocation.command.is_empty() || invocation.shell.is_some());
            }
        }

        #[test]
        fn a_shell_undoes_the_quotes(word in "[^\0$]{0,20}") {
            let script = [b"printf %s ".to_vec(), quoted(word.as_bytes())].concat();
            let script = String::from_utf8(script).unwrap();
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            prop_assert_eq!(output.stdout, word.as_bytes());
        }
    }
}
