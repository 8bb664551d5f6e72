//! What tests share: registries and file servers with fault injection. Ships nothing.

mod files;
mod registry;

pub use files::{FileServer, Page, Seen};
pub use registry::{
    Action, Auth, CertAuthority, DebianOptions, DebianRegistry, Entry, Fault, Options, TestRegistry,
    docker_config,
};
