#![doc = include_str!("../README.md")]

mod case;
mod cases;
mod failure;
mod harness;
mod process;
mod runner;
mod spec;

pub use harness::Harness;
pub use runner::{check, run, run_all};
