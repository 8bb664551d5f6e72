//! Unpacks a layer blob into a new directory and prints time and CPU seconds: `unpack_bench BLOB DIR`.
#![allow(clippy::print_stdout, reason = "an example's output is its purpose")]

use rbuild_layer::{Limits, unpack_layer};
use std::error::Error;
use std::fs::File;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let usage = "usage: unpack_bench BLOB DIR";
    let blob = File::open(args.next().ok_or(usage)?)?;
    let dir = args.next().ok_or(usage)?;
    std::fs::create_dir(&dir)?;
    let start = Instant::now();
    let unpacked = unpack_layer(blob, "", File::open(&dir)?, &Limits::default())?;
    let wall = start.elapsed().as_secs_f64();
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    println!(
        "{} entries, {} MB in {wall:.2} s, user {} sys {} (1/100 s), {}",
        unpacked.entries,
        unpacked.tar_size / 1_000_000,
        fields[11],
        fields[12],
        unpacked.diff_id
    );
    Ok(())
}
