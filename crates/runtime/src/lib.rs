//! Runs one process (a `RUN` step) in namespaces of its own.
//!
//! ```text
//! builder ──spawn──▶ supervisor (re-exec'd init) ──clone──▶ pid 1 of the step ──execve──▶ the program
//!    │  control socket     │ overlay, user, stubs              │ pivot_root, /proc /sys /dev,
//!    └──────EOF = kill────▶│ waits, cleans, reports            │ mounts, capabilities, user
//! ```
//!
//! * The builder is never forked: [`Launcher::spawn`] starts the builder's own executable again through
//!   [`std::process::Command`] (which uses `vfork`), and [`init_main`] takes over there.
//! * The supervisor stays outside of the step's namespaces. It holds the root filesystem as a mount that is
//!   attached nowhere, so a killed build leaves no mount behind; end of file on the control socket (the builder
//!   is gone, or asked for it) makes it kill pid 1 of the step, and with it every process of the step.
//! * The step's program *is* pid 1 of its pid namespace, as under BuildKit. When it ends, the kernel kills
//!   what it left in the background.
//!
//! The binary's `main` must begin with
//!
//! ```no_run
//! if rbuild_runtime::is_init_invocation() {
//!     rbuild_runtime::init_main();
//! }
//! ```
//!
//! before any thread, runtime or argument parser is started.
//!
//! Limits of memory and processors are those of a cgroup that the step gets if it asks for one (`cgroup.rs`).
//!
//! Seams: user namespaces are not implemented; [`Spec`] holds their place.
//! Without a device cgroup, `nodev` on everything a step can write to is what keeps it from the machine's
//! disks (`system.rs`).
#![allow(
    unsafe_code,
    reason = "namespaces, execve and mount_setattr have no safe wrapper; every block says why it holds"
)]

mod cgroup;
mod child;
mod error;
mod exec;
mod init;
mod launch;
mod mounts;
mod overlay;
mod resolve;
mod seccomp;
mod spec;
mod stubs;
mod sys;
mod system;
mod user;
mod wire;

pub use cgroup::{Cgroup, Limits, MemorySwap, parse_id_list};
pub use error::RuntimeError;
pub use init::{INIT_ARG0, init_main, is_init_invocation};
pub use launch::{Killer, Launcher, RunningStep, StepIo, StepOutput};
pub use spec::{
    DEFAULT_CAPABILITIES, DEFAULT_PATH, DeviceNode, FileContent, MountKind, MountSpec, Network, Rlimit,
    Scratch, Seccomp, Spec, UserNamespace,
};
pub use stubs::fill_stub_layer;
pub use user::{Identity, resolve_user};
pub use wire::{ExitStatus, Outcome, Usage};
