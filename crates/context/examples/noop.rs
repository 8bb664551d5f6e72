//! Times what a build without changes does to its context: open, load the stat cache, walk, ask for all digests.
//!
//! `cargo run --release -p rbuild-context --example noop -- DIR CACHE_DIR [ROUNDS]`

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use rbuild_context::{LocalContext, StatCache};
use rbuild_tree::{FileKind, Tree, TreePath};
use std::time::Instant;

fn main() -> std::io::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let (Some(dir), Some(cache)) = (args.next(), args.next()) else {
        println!("usage: noop DIR CACHE_DIR [ROUNDS]");
        return Ok(());
    };
    let rounds = args.next().and_then(|n| n.to_string_lossy().parse().ok()).unwrap_or(5u32);
    for _ in 0..rounds {
        let start = Instant::now();
        let context = LocalContext::open(&dir, None, Some(StatCache::open(&cache, &dir)))?.reset_owner(true);
        let loaded = start.elapsed();
        let mut files = context.walk(&TreePath::root())?;
        let (walked, entries) = (start.elapsed(), files.len());
        files.retain(|(_, meta)| meta.kind == FileKind::Regular);
        let digests = context.digests(&files)?.len();
        let digested = start.elapsed();
        let saved = context.save_stat_cache()?;
        println!(
            "{entries} entries, {digests} digests: load {:?}, walk {:?}, digests {:?}, save({saved}) {:?}, all {:?}",
            loaded,
            walked - loaded,
            digested - walked,
            start.elapsed() - digested,
            start.elapsed()
        );
    }
    Ok(())
}
