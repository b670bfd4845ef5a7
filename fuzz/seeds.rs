//! Writes inputs to start from, for each fuzz target into a directory of its name below the one named by the argument.

use std::{env, fs, io, path::Path};

#[path = "../crates/sandbox-agent/tests/protocol/samples.rs"]
mod samples;

const ACCOUNTS: [&str; 3] = [
    "games\0root:x:0:0:root:/root:/bin/bash\ngames:x:5:60:games:/usr/games:/bin/sh\n\0audio:x:29:games\n",
    "1000:29\0user:x:1000:1000::/home/user:\n\0audio:x:29:\n",
    ":audio\0+::::::\n\0audio:*:29:user,games\n",
];

fn main() -> io::Result<()> {
    let corpus = env::args_os().nth(1).ok_or(io::ErrorKind::InvalidInput)?;
    let messages = samples::all().into_iter();
    let messages = messages.map(|(kind, bytes)| [vec![kind], bytes].concat());
    write(&Path::new(&corpus).join("protocol"), messages)?;
    let accounts = ACCOUNTS.iter().map(|text| text.as_bytes().to_vec());
    write(&Path::new(&corpus).join("accounts"), accounts)
}

fn write(directory: &Path, inputs: impl Iterator<Item = Vec<u8>>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for (number, input) in inputs.enumerate() {
        fs::write(directory.join(format!("seed-{number}")), input)?;
    }
    Ok(())
}
