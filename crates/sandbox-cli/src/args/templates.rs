//! The options of `sandbox templates`.

use crate::parse;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// List, import, inspect and remove what sandboxes start from
///
/// Without a subcommand it lists them. Every name and id can be given to `--template`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_value_name = "COMMAND",
    after_help = "Examples:\n  \
    sandbox templates import rootfs.tar.gz --name small\n  \
    sandbox run --template small -c 'echo hello' --lang sh\n  \
    sandbox templates --json | jq -r '.[].names[]'"
)]
pub(crate) struct TemplatesArgs {
    #[command(subcommand)]
    pub(crate) action: Option<TemplatesAction>,

    /// Print an array of objects
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TemplatesAction {
    Ls(TemplatesLsArgs),
    Import(ImportArgs),
    Inspect(InspectTemplateArgs),
    Rm(RmTemplateArgs),
}

/// List the templates
#[derive(Debug, Args)]
pub(crate) struct TemplatesLsArgs {
    /// Print an array of objects
    #[arg(long)]
    pub(crate) json: bool,
}

/// Make a template of a directory, a tar archive or an image, and print its id
///
/// An image is an OCI layout, or what `docker save` writes. Archives may be compressed by gzip or zstd. It is kept under a digest of its contents, so that what was imported before
/// takes no space again; a name can be moved to another template. Devices, extended attributes and setuid bits are left
/// out, and what that concerns is said.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sandbox templates import rootfs.tar.gz --name small\n  \
    debootstrap stable tree && sandbox templates import tree --name debian\n  \
    sandbox templates import python-image --ref 3.13 --name python:3.13\n  \
    docker save alpine | gzip > alpine.tar.gz && sandbox templates import alpine.tar.gz")]
pub(crate) struct ImportArgs {
    /// What to import
    pub(crate) path: PathBuf,

    /// A name for it
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// Which image, if there are several
    #[arg(long = "ref", value_name = "REFERENCE")]
    pub(crate) reference: Option<String>,

    /// Refuse it if its files have more than this, as in 512M or 2G [default: 16G]
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub(crate) max_size: Option<u64>,

    /// Refuse it if it has more files, directories and links than this [default: 1000000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_entries: Option<u64>,

    /// Print an object instead of the id
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what is known of an imported template
#[derive(Debug, Args)]
pub(crate) struct InspectTemplateArgs {
    /// Its name, its id, or the start of that
    pub(crate) id: String,

    /// Print an object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Take away the name of a template, and with its last name the template
///
/// By its id, a template goes with all its names. One that sandboxes stand on stays.
#[derive(Debug, Args)]
pub(crate) struct RmTemplateArgs {
    /// Names or ids
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,

    /// Print an array of objects
    #[arg(long)]
    pub(crate) json: bool,
}
