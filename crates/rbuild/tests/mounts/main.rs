//! RUN --mount, from the command line to the layers (features ).

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

mod bed;
mod bind;
mod cache;
mod chain;
mod device;
mod insecure;
mod secret;
