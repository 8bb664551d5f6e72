//! words with variables.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| rbuild_frontend_fuzz::expansion(data));
