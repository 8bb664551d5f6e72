//! Dockerfiles: parsing, checks, lowering, reports.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| rbuild_frontend_fuzz::parser(data));
