//! The client against registries: one in memory that misbehaves, and Debian's docker-registry.

mod attacks;
mod auth;
mod debian;
mod faults;
mod roundtrip;
mod support;
mod tls;
