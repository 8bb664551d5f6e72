//! A short run of the fuzz targets without cargo-fuzz: seeds from testdata, changed at random, always in the same way.
//! `RBUILD_FUZZ_ITERATIONS` makes it longer; scripts/fuzz.sh runs the long form.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests")]

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "it is a library elsewhere")]
mod targets;

use std::fs;
use std::path::Path;

/// Changed inputs for each target.
const ITERATIONS: usize = 3_000;
/// Longest changed input.
const MAX_LENGTH: usize = 8 << 10;

/// Pieces of the languages that random bytes would not hit.
const TOKENS: [&str; 48] = [
    "\n",
    "\\\n",
    "\r\n",
    "# ",
    "FROM ",
    "ARG A=1\n",
    "ENV ",
    "COPY --from=",
    "RUN --mount=type=",
    "ONBUILD ",
    "<<EOF",
    "<<-'E'",
    "EOF\n",
    "$A",
    "${A:-",
    "${A##",
    "${A//",
    "}",
    "\"",
    "'",
    "`",
    "\\",
    "[\"",
    "\", \"",
    "\"]",
    "--",
    "=",
    ",",
    "# escape=`\n",
    "# check=skip=all\n",
    "# syntax=a\n",
    "AS ",
    "scratch",
    "HEALTHCHECK ",
    "EXPOSE 80/TCP\n",
    "SHELL [\"a\"]\n",
    "**",
    "!",
    "[a-",
    "]",
    "?",
    "/",
    "..",
    "\u{feff}",
    "ä",
    "\0",
    "\t",
    "MAINTAINER x\n",
];

/// xorshift: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut data = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(data.len() + 1);
        let end = (at + random.below(24)).min(data.len());
        match random.below(7) {
            0 => data.splice(at..at, TOKENS[random.below(TOKENS.len())].bytes()).for_each(drop),
            1 => data.drain(at..end).for_each(drop),
            2 => {
                let piece = data[at..end].to_vec();
                data.splice(at..at, piece).for_each(drop);
            }
            3 if at < data.len() => data[at] = random.below(256) as u8,
            4 if at < data.len() => data[at] ^= 1 << random.below(8),
            5 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                data.truncate(at);
                data.extend(&other[from..]);
            }
            _ => data.truncate(at.max(1)),
        }
    }
    data.truncate(MAX_LENGTH);
    data
}

fn dockerfiles() -> Vec<Vec<u8>> {
    fn below(dir: &Path, found: &mut Vec<Vec<u8>>) {
        let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            match path.is_dir() {
                true => below(&path, found),
                false if path.ends_with("Dockerfile") => found.push(fs::read(&path).unwrap()),
                false => {}
            }
        }
    }
    let mut found = Vec::new();
    below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata"), &mut found);
    assert!(found.len() >= 20);
    found
}

/// The lines of Dockerfiles as words, with variables before them.
fn words() -> Vec<Vec<u8>> {
    let files = dockerfiles();
    let lines = files.iter().flat_map(|file| file.split(|&byte| byte == b'\n'));
    let words = lines.filter(|line| line.contains(&b'$') || line.contains(&b'"'));
    words.map(|line| [b"A=one two\nPATH=/bin:/usr/bin\nV=foo*bar\n", line].concat()).collect()
}

fn ignore_files() -> Vec<Vec<u8>> {
    let seeds = [
        "# all\n*\n!src\n",
        "**/*.go\n!a/b/c.go\n",
        "a?c\n[a-c]*\n\\[x\n",
        "/a/../b/\n  !  c \n!\n",
        "**\n!**/x/**\n",
    ];
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

#[expect(clippy::disallowed_methods, reason = "a switch for longer runs")]
fn run(seeds: &[Vec<u8>], target: fn(&[u8])) {
    let given = std::env::var("RBUILD_FUZZ_ITERATIONS").ok().and_then(|text| text.parse().ok());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    seeds.iter().for_each(|seed| target(seed));
    for _ in 0..given.unwrap_or(ITERATIONS) {
        let data = mutate(&mut random, seeds);
        if let Err(panic) = std::panic::catch_unwind(|| target(&data)) {
            eprintln!("the input was {:?}", String::from_utf8_lossy(&data));
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn parser() {
    run(&dockerfiles(), targets::parser);
}

#[test]
fn expansion() {
    run(&words(), targets::expansion);
}

#[test]
fn dockerignore() {
    run(&ignore_files(), targets::dockerignore);
}
