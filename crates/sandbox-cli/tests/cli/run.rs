//! `sandbox run`: programs of several languages, what they get, and how they end.

use crate::support::{Home, Talk, finish};
use std::{ffi::OsStr, fs, io::Write, os::unix::ffi::OsStrExt, path::Path};

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn path(directory: &tempfile::TempDir, name: &str) -> String {
    directory.path().join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_program_gets_its_files_arguments_and_input_and_its_code_is_passed_on() {
    let here = directory(&[
        (
            "main.py",
            "import sys, helper\nprint(sys.argv[1:], open('data.csv').read().strip(), sys.stdin.read().strip())\n\
             print('oh', file=sys.stderr)\nsys.exit(helper.code)\n",
        ),
        ("lib/helper.py", "code = 3\n"),
        ("data.csv", "1,2\n"),
    ]);
    let home = Home::shared();
    let outcome = home.sandbox_with(
        &[
            "run",
            &path(&here, "main.py"),
            "a b",
            "--file",
            &path(&here, "data.csv"),
            "--file",
            &format!("{}:helper.py", path(&here, "lib/helper.py")),
            "--",
            "--c",
        ],
        "typed",
    );
    outcome.assert_code(3);
    assert_eq!(outcome.stdout, "['a b', '--c'] 1,2 typed\n");
    assert_eq!(outcome.stderr, "oh\n");
}

#[test]
fn the_language_is_known_by_option_first_line_or_name() {
    let here = directory(&[
        ("a.sh", "echo sh $BASH_VERSION | cut -c1-4"),
        ("b", "#!/usr/bin/perl -w\nprint \"perl\\n\";"),
        ("c.txt", "#!/usr/bin/awk -f\nBEGIN { print \"awk\" }\n"),
        ("-d e.pl", "print \"dash\\n\""),
    ]);
    let home = Home::shared();
    let run = |args: &[&str]| home.sandbox(&[&["run"], args].concat()).ok();
    assert_eq!(run(&["-c", "print(6 * 7)"]), "42\n");
    assert_eq!(run(&["-c", "echo $1", "--lang", "sh", "x"]), "x\n");
    assert!(run(&[&path(&here, "a.sh")]).starts_with("sh "));
    assert_eq!(run(&[&path(&here, "b")]), "perl\n");
    assert_eq!(run(&[&path(&here, "c.txt")]), "awk\n");
    assert_eq!(run(&[&path(&here, "-d e.pl")]), "dash\n");
    let outcome = home.sandbox_with(
        &["run", "-", "x"],
        "import sys; print(sys.argv[1], sys.stdin.read())",
    );
    assert_eq!(outcome.ok(), "x \n");
}

#[test]
fn the_program_is_what_runs_whatever_its_name_and_company() {
    let here = directory(&[
        ("main.py", "print('mine')"),
        ("other/main.py", "print('other')"),
    ]);
    let home = Home::shared();
    let other = format!("{}:.", path(&here, "other/."));
    let main = path(&here, "main.py");
    assert_eq!(
        home.sandbox(&["run", &main, "--file", &other]).ok(),
        "mine\n"
    );
    for dest in ["main.py", "./main.py", ".//main.py"] {
        let file = format!("{}:{dest}", path(&here, "other/main.py"));
        home.sandbox(&["run", &main, "--file", &file])
            .assert_refused("take the place");
    }
    let odd = here.path().join(OsStr::from_bytes(b"odd\xff.py"));
    fs::rename(&main, &odd).unwrap();
    let mut command = home.command(&["run"]);
    assert_eq!(finish(command.arg(odd).spawn().unwrap()).ok(), "mine\n");
}

#[test]
fn a_timeout_that_no_sandbox_lives_to_see_is_refused() {
    let home = Home::shared();
    let outcome = home.sandbox(&["run", "--timeout", "2y", "-c", ""]);
    outcome.assert_refused("--timeout can be at most");
}

#[test]
fn output_comes_as_it_is_printed() {
    let home = Home::shared();
    let code = "print('name?'); print('hello ' + input())";
    let mut talk = Talk::start(home.command(&["run", "-c", code]));
    assert_eq!(talk.line(), "name?");
    writeln!(talk.stdin, "you").unwrap();
    assert_eq!(talk.line(), "hello you");
    talk.finish().assert_code(0);
}

#[test]
fn output_that_is_not_text_is_passed_on_as_it_is() {
    let home = Home::shared();
    let code = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 4096)";
    let output = home.command(&["run", "-c", code]).output().unwrap();
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(output.stdout.len(), 256 * 4096);
    assert!(output.stdout.chunks(256).all(|chunk| chunk == all));
}

#[test]
fn time_is_up_with_124_and_what_was_printed() {
    let home = Home::shared();
    let outcome = home.sandbox(&[
        "run",
        "--timeout",
        "2",
        "--lang",
        "sh",
        "-c",
        "echo before; sleep 600",
    ]);
    outcome.assert_code(124);
    assert!(outcome.stdout.contains("before"), "{outcome:?}");
    assert!(outcome.stderr.contains("timed out after 2s"), "{outcome:?}");
    let outcome = home.sandbox(&[
        "run",
        "--lifetime",
        "1",
        "-c",
        "import time; time.sleep(600)",
    ]);
    outcome.assert_code(124);
    assert!(
        outcome.stderr.contains("lifetime of 1s was over"),
        "{outcome:?}"
    );
}

#[test]
fn lack_of_memory_is_137_and_said() {
    let home = Home::shared();
    let code = "print('before'); x = bytearray(1 << 30)";
    let outcome = home.sandbox(&["run", "--memory", "64M", "-c", code]);
    outcome.assert_code(137);
    assert_eq!(outcome.stdout, "before\n");
    assert!(outcome.stderr.contains("out of memory"), "{outcome:?}");
}

#[test]
fn the_end_by_a_signal_is_named() {
    let home = Home::shared();
    let outcome = home.sandbox(&["run", "--lang", "sh", "-c", "kill -SEGV $$"]);
    outcome.assert_code(139);
    assert!(outcome.stderr.contains("segmentation fault"), "{outcome:?}");
}

#[test]
fn a_missing_interpreter_says_what_to_install() {
    let home = Home::shared();
    let outcome = home.sandbox(&["run", "--env", "PATH=/nowhere", "-c", "1"]);
    outcome.assert_code(127);
    assert!(
        outcome
            .stderr
            .contains("nothing in the sandbox runs python"),
        "{outcome:?}"
    );
    assert!(
        outcome.stderr.contains("apt-get install python3"),
        "{outcome:?}"
    );
    // A program may end with 127 of its own accord.
    let outcome = home.sandbox(&["run", "-c", "raise SystemExit(127)"]);
    outcome.assert_code(127);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn what_is_wrong_is_said_before_there_is_a_sandbox() {
    let here = directory(&[("a.py", ""), ("b.xyz", "")]);
    let home = Home::own();
    let run = |args: &[&str]| home.sandbox(&[&["run"], args].concat());
    run(&[]).assert_refused("required");
    run(&["/nowhere/a.py"]).assert_refused("No such file");
    run(&[here.path().to_str().unwrap()]).assert_refused("is a directory");
    run(&[&path(&here, "b.xyz")]).assert_refused("use --lang with one of python");
    let big = fs::File::create(here.path().join("big.py")).unwrap();
    big.set_len(65 << 20).unwrap();
    run(&[&path(&here, "big.py")]).assert_refused("larger than the 64 MiB");
    run(&["-c", "", "--lang", "cobol"]).assert_refused("possible values");
    run(&["-c", "", "--memory", "many"]).assert_refused("as in 512M");
    run(&["-c", "", "--timeout", "soon"]).assert_refused("1h30m");
    run(&["-c", "", "--env", "SURELY_NOT_SET"]).assert_refused("SURELY_NOT_SET=VALUE");
    run(&["-c", "", "--file", "/nowhere/x"]).assert_refused("no such file");
    run(&[&path(&here, "a.py"), "--file", &path(&here, "a.py")]).assert_refused("take the place");
    run(&[&path(&here, "a.py"), "--epochs"]).assert_refused("write it after '--'");
    assert!(!home.state().join("sandboxes").exists());
}

#[test]
fn an_unknown_template_is_refused() {
    Home::shared()
        .sandbox(&["run", "--template", "moon", "-c", ""])
        .assert_refused("moon");
}

#[test]
fn variables_are_given_or_passed_on() {
    let home = Home::shared();
    let code = "import os; print(os.environ['A'], os.environ['B'], 'SECRET' in os.environ)";
    let mut command = home.command(&["run", "-e", "A=1=2", "-e", "B", "-c", code]);
    let output = command
        .env("B", "here")
        .env("SECRET", "x")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1=2 here False\n");
}

#[test]
fn directories_go_along_with_modes_and_links() {
    let here = directory(&[("src/a/tool.sh", "echo tool"), ("src/b/data", "data")]);
    let src = here.path().join("src");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o750);
    fs::set_permissions(src.join("a/tool.sh"), mode).unwrap();
    std::os::unix::fs::symlink("../b/data", src.join("a/link")).unwrap();
    let script =
        "cat lib/a/link; sh lib/a/tool.sh; stat -c %a lib/a/tool.sh; readlink lib/a/link; ls";
    let outcome = Home::shared().sandbox(&[
        "run",
        "--lang",
        "sh",
        "--file",
        &format!("{}:lib", src.display()),
        "-c",
        script,
    ]);
    assert_eq!(outcome.ok(), "datatool\n750\n../b/data\nlib\nmain.sh\n");
}

#[test]
fn creation_is_timed_on_demand() {
    let home = Home::shared();
    let outcome = home.sandbox(&["run", "-v", "-c", ""]);
    outcome.assert_code(0);
    assert!(
        outcome.stderr.starts_with("sandbox ready in "),
        "{outcome:?}"
    );
    assert_eq!(home.sandbox(&["run", "-c", ""]).stderr, "");
}

#[test]
fn a_kept_sandbox_stays_until_it_is_killed() {
    let home = Home::own();
    let outcome = home.sandbox(&["run", "--keep", "-c", "open('made', 'w').write('x')"]);
    outcome.assert_code(0);
    let [id] = &home.records()[..] else {
        panic!("one sandbox was to be kept: {outcome:?}");
    };
    assert!(outcome.stderr.contains(id.as_str()), "{outcome:?}");
    assert_eq!(home.sandbox(&["exec", id, "cat", "made"]).ok(), "x");
    assert_eq!(home.sandbox(&["kill", id]).ok(), format!("{id}\n"));
    home.assert_nothing_left(id);
}

#[test]
fn the_readmes_example_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = |name: &str| {
        root.join("examples")
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    };
    let home = Home::own();
    let outcome = home.sandbox(&["run", "-v", &file("sales.py"), "--file", &file("sales.csv")]);
    outcome.assert_code(0);
    assert!(outcome.stdout.lines().count() > 10, "{outcome:?}");
    assert!(outcome.stderr.contains("sandbox ready in "), "{outcome:?}");
    assert_eq!(home.records(), [""; 0]);
}
