//! ADD of URLs and git repositories, and contexts that are fetched (A-112, A-115 to A-119, C-016, D-002, D-003). All
//! servers are on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests panic, and say what is skipped"
)]

mod attacks;
mod contexts;
mod epoch;
mod git;
mod http;
mod lab;
mod lock;
#[path = "../support/mod.rs"]
mod support;
