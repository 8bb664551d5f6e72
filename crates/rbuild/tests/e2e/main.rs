//! Whole builds with the real binary: RUN in namespaces, a real store, other tools reading the result.
//!
//! They need root and overlayfs. One binary, so that its parts share the bases and link once.
#![allow(unreachable_pub, reason = "nothing outside this binary sees its modules")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stdout, reason = "tests say what they do and skip")]
#![allow(clippy::disallowed_methods, reason = "a test passes PATH on")]

mod bad_input;
mod builds;
mod cache;
mod cache_mounts;
mod config;
mod context;
mod copying;
mod debian;
mod disk;
mod foreign;
mod full_disk;
mod image;
mod keys;
mod layers;
mod limits;
mod modes;
mod outputs;
mod platforms;
mod registry;
mod remote_cache;
mod reproducible;
mod robust;
mod running;
mod why;
