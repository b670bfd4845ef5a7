//! System calls, each behind a small safe function. No policy here: callers decide what a result means.
//!
//! These files are the only ones of the binary that hold `unsafe` code; each opens with
//! `#![expect(unsafe_code, reason = "...")]` and gives a `// SAFETY:` reason for every block.
