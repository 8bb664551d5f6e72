//! The client against registries: one in memory that misbehaves, and Debian's docker-registry.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![allow(clippy::print_stdout, reason = "tests say what they skip")]

mod attacks;
mod auth;
mod debian;
mod download;
mod faults;
mod proxy;
mod roundtrip;
mod support;
mod tls;
