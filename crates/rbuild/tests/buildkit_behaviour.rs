//! What BuildKit's integration tests of Dockerfiles establish, with Dockerfiles of our own; each test names the feature of
//! features.md that it is about.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests panic and say what is skipped"
)]

mod behaviour;
mod support;
