//! The commands, one module each.

pub(crate) mod attach;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod fork;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod net;
pub(crate) mod pages;
pub(crate) mod pause;
pub(crate) mod port;
pub(crate) mod prune;
pub(crate) mod relay;
pub(crate) mod run;
pub(crate) mod stats;
pub(crate) mod templates;
pub(crate) mod volumes;
