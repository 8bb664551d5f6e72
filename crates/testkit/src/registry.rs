//! Registries on loopback: one in memory that misbehaves on demand, and Debian's `docker-registry`.

mod ca;
mod debian;
mod fault;
mod handler;
pub(crate) mod http;
mod server;
mod state;

pub use ca::CertAuthority;
pub use debian::{DebianOptions, DebianRegistry};
pub use fault::{Action, Fault};
pub use server::{Auth, Options, TestRegistry};
pub use state::Entry;

use serde_json::json;

/// A docker `config.json` with one password.
pub fn docker_config(host: &str, username: &str, password: &str) -> String {
    let auth = base64(format!("{username}:{password}").as_bytes());
    json!({ "auths": { host: { "auth": auth } } }).to_string()
}

/// Standard base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= chunk.len() { digit as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_of_all_remainders() {
        for (plain, encoded) in
            [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("user:pw", "dXNlcjpwdw==")]
        {
            assert_eq!(super::base64(plain.as_bytes()), encoded);
        }
    }
}
