//! What tests share: registries with fault injection. Ships nothing.

mod registry;

pub use registry::{
    Action, Auth, CertAuthority, DebianOptions, DebianRegistry, Entry, Fault, Options, TestRegistry,
    docker_config,
};
