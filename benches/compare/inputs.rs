//! The scenarios and their build contexts.

use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// One case.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) context: PathBuf,
    /// Whether the result is also written as an OCI layout with gzip layers.
    pub(crate) export: bool,
    /// Whether every measured run finds the store of an earlier one.
    pub(crate) warm: bool,
    /// Changes the context before a measured run.
    pub(crate) prepare: fn(&Path, usize) -> Result<()>,
}

fn unchanged(_: &Path, _: usize) -> Result<()> {
    Ok(())
}

fn one_file_changed(context: &Path, run: usize) -> Result<()> {
    Ok(fs::write(context.join("files/d0/f0"), format!("changed {run}"))?)
}

/// Makes all contexts below `dir`.
pub(crate) fn all(dir: &Path) -> Result<Vec<Scenario>> {
    let small = files(dir, "small", 1_000, 4_000)?;
    let many = files(dir, "many", 50_000, 4_000)?;
    let big = big_file(dir)?;
    let runs = runs(dir)?;
    let stages = stages(dir)?;
    let case = |name, context: &PathBuf, export, warm, prepare| Scenario {
        name,
        context: context.clone(),
        export,
        warm,
        prepare,
    };
    Ok(vec![
        case("no-op, 1,000 files", &small, false, true, unchanged),
        case("no-op, 50,000 files", &many, false, true, unchanged),
        case("50 x RUN echo, cold", &runs, false, false, unchanged),
        case("50 x RUN echo, cached", &runs, false, true, unchanged),
        case("8 stages of RUN sleep 1", &stages, false, false, unchanged),
        case("COPY 50,000 files, export, cold", &many, true, false, unchanged),
        case("COPY 50,000 files, export, no-op", &many, true, true, unchanged),
        case("COPY 50,000 files, export, changed", &many, true, true, one_file_changed),
        case("COPY 1 GiB, export, cold", &big, true, false, unchanged),
    ])
}

/// A generator of bytes that are the same in every run (xorshift64*).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }

    /// Text of words, which compresses about as source code does.
    fn text(&mut self, bytes: usize) -> String {
        const WORDS: [&str; 16] = [
            "static", "int", "return", "struct", "buffer", "length", "if", "while", "error", "const", "char",
            "size", "offset", "next", "value", "NULL",
        ];
        let mut out = String::with_capacity(bytes + 16);
        while out.len() < bytes {
            let pick = self.next();
            out.push_str(WORDS[(pick % 16) as usize]);
            if pick & 0x300 == 0 {
                write!(out, "_{:x}", pick >> 48).expect("writing to a string cannot fail");
            }
            out.push(if pick & 0xf000 == 0 { '\n' } else { ' ' });
        }
        out.truncate(bytes);
        out
    }
}

/// `count` files of `bytes` each on average, 100 in a directory.
fn files(dir: &Path, name: &str, count: usize, bytes: usize) -> Result<PathBuf> {
    let context = dir.join(name);
    let mut noise = Noise(42);
    for number in 0..count {
        let folder = context.join(format!("files/d{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&folder)?;
        }
        let size = bytes / 2 + (noise.next() as usize) % bytes;
        fs::write(folder.join(format!("f{}", number % 100)), noise.text(size))?;
    }
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY files /files\n")?;
    Ok(context)
}

/// 1 GiB, half of it incompressible.
fn big_file(dir: &Path) -> Result<PathBuf> {
    use std::io::Write as _;
    let context = dir.join("big");
    fs::create_dir_all(&context)?;
    let mut out = std::io::BufWriter::new(fs::File::create(context.join("data"))?);
    let mut noise = Noise(7);
    let text = noise.text(8 << 20);
    let mut random = vec![0; 8 << 20];
    for round in 0..64 {
        noise.fill(&mut random);
        // Texts of different rounds must not be copies of each other within a compressor's window.
        let shift = round * 4096 % text.len();
        out.write_all(&text.as_bytes()[shift..])?;
        out.write_all(&text.as_bytes()[..shift])?;
        out.write_all(&random)?;
    }
    out.flush()?;
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY data /data\n")?;
    Ok(context)
}

fn busybox(context: &Path) -> Result<()> {
    fs::create_dir_all(context)?;
    fs::copy("/bin/busybox", context.join("busybox"))
        .context("no /bin/busybox: run scripts/install-test-deps.sh")?;
    Ok(())
}

const BASE: &str = "FROM scratch AS base\nCOPY busybox /bin/sh\nCOPY busybox /bin/sleep\n";

fn runs(dir: &Path) -> Result<PathBuf> {
    let context = dir.join("runs");
    busybox(&context)?;
    let mut text = BASE.to_owned();
    for number in 1..=50 {
        writeln!(text, "RUN echo {number} > /f{number}")?;
    }
    fs::write(context.join("Dockerfile"), text)?;
    Ok(context)
}

fn stages(dir: &Path) -> Result<PathBuf> {
    let context = dir.join("stages");
    busybox(&context)?;
    let mut text = BASE.to_owned();
    for number in 1..=8 {
        writeln!(text, "FROM base AS s{number}\nRUN sleep 1; echo {number} > /o{number}")?;
    }
    text.push_str("FROM scratch\n");
    for number in 1..=8 {
        writeln!(text, "COPY --from=s{number} /o{number} /")?;
    }
    fs::write(context.join("Dockerfile"), text)?;
    Ok(context)
}
