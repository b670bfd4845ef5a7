//! The options of `sandbox volumes`.

use clap::{Args, Subcommand};

/// List, make and remove volumes, which sandboxes share and which outlive them
///
/// Without a subcommand it lists them. A sandbox gets one by `--volume NAME:DEST`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_value_name = "COMMAND",
    after_help = "Examples:\n  \
    sandbox volumes create cache\n  \
    sandbox run build.sh --volume cache:/home/user/.cache\n  \
    sandbox run test.sh --volume ./project:/work:ro"
)]
pub(crate) struct VolumesArgs {
    #[command(subcommand)]
    pub(crate) action: Option<VolumesAction>,

    /// Print an array of names
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumesAction {
    /// List the volumes
    Ls(VolumesLsArgs),
    /// Make empty volumes
    Create(VolumeNames),
    /// Remove volumes with all that is in them
    Rm(VolumeNames),
}

#[derive(Debug, Args)]
pub(crate) struct VolumesLsArgs {
    /// Print an array of names
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VolumeNames {
    /// Names of volumes
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,

    /// Print an array of names
    #[arg(long)]
    pub(crate) json: bool,
}
