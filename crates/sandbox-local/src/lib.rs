#![doc = include_str!("../README.md")]

mod config;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod volume;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod sys;

pub use config::LocalBuilder;
#[cfg(not(target_os = "linux"))]
pub use elsewhere::LocalProvider;
#[cfg(target_os = "linux")]
pub use linux::{
    Check, Diagnosis, ImportOptions, ImportProgress, ImportedTemplate, LocalProvider, Origin,
    PoolStatus, Pruned, Verdict,
};
pub use volume::VolumeMount;
