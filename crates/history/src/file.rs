//! The file of a record: parts, each written at once.
//!
//! ```text
//! file = part*
//! part = length of the rest (u32, little-endian), JSON, or one zstd frame of it when it is long
//! ```
//!
//! A build that is killed leaves whole parts and at most one that is cut off, which is left out.

use crate::error::{HistoryError, Result};
use crate::record::{Begin, End, Keys, Record, StepEnd, VERSION};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// zstd's fastest ordinary level: records are small.
const LEVEL: i32 = 1;
/// Parts up to this length are written as they are, in bytes: making a compressor takes longer than writing them.
const SHORT: usize = 8 << 10;
/// Longest part that is read, unpacked, in bytes.
const MAX_PART: u64 = 256 << 20;
/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 256 << 20;

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Part<'a> {
    Begin(&'a Begin),
    Keys(&'a Keys),
    Step(usize, &'a StepEnd),
    End(&'a End),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum OwnedPart {
    Begin(Begin),
    Keys(Keys),
    Step(usize, StepEnd),
    End(End),
}

/// A new record that this process holds: others see that its build is running.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Adds a part, in one write.
pub(crate) fn append(file: &mut File, part: &Part<'_>) -> io::Result<()> {
    let json = serde_json::to_vec(part)?;
    let packed = if json.len() <= SHORT { json } else { zstd::bulk::compress(&json, LEVEL)? };
    let length = u32::try_from(packed.len()).map_err(io::Error::other)?;
    file.write_all(&[&length.to_le_bytes()[..], &packed].concat())
}

fn parts(path: &Path) -> Result<Vec<Vec<u8>>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|source| HistoryError::io("open", path, source))?;
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(|source| HistoryError::io("read", path, source))?;
    let (mut rest, mut parts) = (bytes.as_slice(), Vec::new());
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let Some(part) = after.get(..u32::from_le_bytes(*length) as usize) else { break };
        parts.push(part.to_vec());
        rest = &after[part.len()..];
    }
    Ok(parts)
}

fn unpacked(part: &[u8]) -> io::Result<Vec<u8>> {
    if part.starts_with(b"{") {
        return Ok(part.to_vec());
    }
    let mut json = Vec::new();
    zstd::Decoder::with_buffer(part)?.take(MAX_PART).read_to_end(&mut json)?;
    Ok(json)
}

/// What the build is, from the first part alone.
pub(crate) fn read_begin(path: &Path) -> Result<Begin> {
    let damaged = |reason: String| HistoryError::Damaged { path: path.to_owned(), reason };
    let mut file = File::open(path).map_err(|source| HistoryError::io("open", path, source))?;
    let mut read = || -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        file.read_exact(&mut length)?;
        let mut part = Vec::new();
        (&mut file).take(u64::from(u32::from_le_bytes(length))).read_to_end(&mut part)?;
        unpacked(&part)
    };
    let json = read().map_err(|error| damaged(error.to_string()))?;
    match serde_json::from_slice(&json) {
        Ok(OwnedPart::Begin(begin)) if begin.version <= VERSION => Ok(begin),
        Ok(OwnedPart::Begin(begin)) => Err(damaged(format!("version {} is not known", begin.version))),
        Ok(_) => Err(damaged("it does not begin with a beginning".into())),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// All that the file says. What is cut off or not understood is left out.
pub(crate) fn read(path: &Path) -> Result<Record> {
    let begin = read_begin(path)?;
    let mut record = Record { begin, keys: None, end: None, ended_steps: Vec::new(), running: false };
    for part in parts(path)?.into_iter().skip(1) {
        let Ok(json) = unpacked(&part) else { break };
        match serde_json::from_slice(&json) {
            Ok(OwnedPart::Keys(keys)) => record.keys = Some(keys),
            Ok(OwnedPart::Step(place, end)) => record.ended_steps.push((place, end)),
            Ok(OwnedPart::End(end)) => record.end = Some(end),
            // Parts of a later version are left out.
            Ok(OwnedPart::Begin(_)) | Err(_) => {}
        }
    }
    record.running = record.end.is_none() && is_held(path);
    Ok(record)
}

/// Whether a running build holds the record.
pub(crate) fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}
