//! `sandbox completions` and `sandbox man`: what shells and `man` know of this command, from the same source as its help.

use crate::{
    args::{Cli, CompletionsArgs, ManArgs},
    output, stdio,
};
use anyhow::{Context, Result};
use clap::CommandFactory;
use std::{fs, io};

pub(crate) fn completions(args: &CompletionsArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sandbox", &mut script);
    write(&script)
}

pub(crate) fn man(args: &ManArgs) -> Result<u8> {
    let Some(directory) = &args.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return write(&page);
    };
    let failed = || format!("cannot write manual pages into {}", directory.display());
    fs::create_dir_all(directory).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).with_context(failed)?;
    Ok(0)
}

fn write(bytes: &[u8]) -> Result<u8> {
    stdio::write_all(io::stdout(), bytes).map_err(output::write_error)?;
    Ok(0)
}
