//! Real steps in real namespaces. The supervisor is this executable itself, hence the harness of its own.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::exit, reason = "a test program")]

mod attacks;
mod basics;
mod cgroups;
mod common;
mod filter;
mod layers;
mod lifetime;
mod sandbox;

use std::panic::catch_unwind;

fn main() {
    if rbuild_runtime::is_init_invocation() {
        rbuild_runtime::init_main();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, dir] = args.as_slice()
        && mode == lifetime::VICTIM
    {
        lifetime::victim(dir);
    }
    let steps = [basics::TESTS, sandbox::TESTS, filter::TESTS, attacks::TESTS, layers::TESTS];
    let all = [&steps[..], &[lifetime::TESTS, cgroups::TESTS]].concat().concat();
    let filters: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    if args.iter().any(|a| a == "--list") {
        all.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    if let Err(reason) = common::probe() {
        all.iter().for_each(|(name, _)| println!("skipped: {name}: {reason}"));
        return;
    }
    let chosen = all
        .iter()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str())));
    let mut failed = Vec::new();
    for (name, test) in chosen {
        let ok = catch_unwind(test).is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        if !ok {
            failed.push(*name);
        }
    }
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
        std::process::exit(101);
    }
}
