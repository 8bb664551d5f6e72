//! Secrets of a build: values that never reach keys, history, logs or layers.

use crate::ssh::SshAgent;
use rbuild_tree::{DirTree, FileKind, Tree, TreePath};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// Longest secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 500 << 10;

/// Shorter values are not looked for in output: they would be found everywhere.
const MIN_REDACTED: usize = 4;

/// Shorter values are not looked for in files.
const MIN_LEAK: usize = 8;

/// Bytes of a file that are looked at at once.
const CHUNK: usize = 1 << 20;

/// What stands in a log for a secret.
const MASK: &[u8] = b"****";

/// The value of a secret. Clones share it; the last one overwrites it.
#[derive(Clone)]
pub struct Secret(Arc<Bytes>);

struct Bytes(Vec<u8>);

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the compiler from leaving out writes that nobody reads.
        std::hint::black_box(&self.0);
    }
}

impl Secret {
    /// A secret of these bytes; `None` if there are more than [`MAX_SECRET_BYTES`].
    pub fn new(value: Vec<u8>) -> Option<Self> {
        let value = Bytes(value);
        (value.0.len() <= MAX_SECRET_BYTES).then(|| Self(Arc::new(value)))
    }

    /// The value.
    pub fn bytes(&self) -> &[u8] {
        &self.0.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(****)")
    }
}

/// What RUN steps of a build may ask for by id.
#[derive(Debug, Clone, Default)]
pub struct Confidential {
    /// `--secret`.
    pub secrets: BTreeMap<String, Secret>,
    /// `--ssh`: agents.
    pub agents: BTreeMap<String, SshAgent>,
}

/// Takes secrets out of a step's output.
#[derive(Debug, Clone, Default)]
pub(crate) struct Redactor {
    /// Lines of values, the longest first.
    needles: Vec<Secret>,
}

impl Redactor {
    /// Looks for every line of these values, since output is reported line by line.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut needles: Vec<Secret> = Vec::new();
        for secret in secrets {
            let lines = secret.bytes().split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
            needles.extend(
                lines
                    .filter(|line| line.len() >= MIN_REDACTED)
                    .map(|line| Secret(Arc::new(Bytes(line.to_vec())))),
            );
        }
        needles.sort_by(|a, b| b.bytes().len().cmp(&a.bytes().len()).then_with(|| a.bytes().cmp(b.bytes())));
        needles.dedup_by(|a, b| a.bytes() == b.bytes());
        Self { needles }
    }

    /// The longest that is looked for, in bytes.
    pub(crate) fn longest(&self) -> usize {
        self.needles.first().map_or(0, |needle| needle.bytes().len())
    }

    /// The line with a mask for every secret in it.
    pub(crate) fn redact(&self, line: Vec<u8>) -> Vec<u8> {
        self.needles.iter().fold(line, |line, needle| replace(line, needle.bytes()))
    }
}

/// The files below `dir` that hold the value of a secret.
pub(crate) fn leaks(dir: &Path, secrets: &[Secret]) -> io::Result<Vec<TreePath>> {
    let values: Vec<&[u8]> = secrets.iter().map(|secret| secret.bytes().trim_ascii()).collect();
    let values: Vec<&[u8]> = values.into_iter().filter(|value| value.len() >= MIN_LEAK).collect();
    let Some(longest) = values.iter().map(|value| value.len()).max() else { return Ok(Vec::new()) };
    let tree = DirTree::open(dir)?;
    let mut found = Vec::new();
    for (path, meta) in tree.walk(&TreePath::root())? {
        if meta.kind == FileKind::Regular
            && meta.size >= MIN_LEAK as u64
            && holds(tree.open(&path)?, &values, longest)?
        {
            found.push(path);
        }
    }
    Ok(found)
}

fn holds(mut file: impl Read, values: &[&[u8]], longest: usize) -> io::Result<bool> {
    let mut window = Vec::new();
    loop {
        // What may be the beginning of a value is looked at again.
        window.drain(..window.len().saturating_sub(longest - 1));
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut window)?;
        if values.iter().any(|value| find(&window, value).is_some()) {
            return Ok(true);
        }
        if read == 0 {
            return Ok(false);
        }
    }
}

fn replace(line: Vec<u8>, needle: &[u8]) -> Vec<u8> {
    let Some(mut at) = find(&line, needle) else { return line };
    let mut out = Vec::with_capacity(line.len());
    let mut rest = &line[..];
    loop {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(MASK);
        rest = &rest[at + needle.len()..];
        match find(rest, needle) {
            Some(next) => at = next,
            None => break,
        }
    }
    out.extend_from_slice(rest);
    out
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, last) = (*needle.first()?, text.len().checked_sub(needle.len())?);
    let mut from = 0;
    while from <= last {
        from += text[from..=last].iter().position(|byte| *byte == first)?;
        if text[from..].starts_with(needle) {
            return Some(from);
        }
        from += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let secret = Secret::new(b"hunter2hunter2".to_vec()).unwrap();
        let confidential =
            Confidential { secrets: BTreeMap::from([("x".into(), secret)]), ..Confidential::default() };
        let shown = format!("{confidential:?}");
        assert!(shown.contains("****") && !shown.contains("hunter") && !shown.contains("104"), "{shown}");
        assert!(Secret::new(vec![0; MAX_SECRET_BYTES]).is_some());
        assert!(Secret::new(vec![0; MAX_SECRET_BYTES + 1]).is_none());
    }

    #[test]
    fn w16_leaks_are_found_wherever_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let secret = Secret::new(b"correct-horse\n".to_vec()).unwrap();
        let short = Secret::new(b"short".to_vec()).unwrap();
        for (name, before) in [("begin", 0), ("border", CHUNK - 5), ("later", 2 * CHUNK - 12)] {
            let mut bytes = vec![b'c'; before];
            bytes.extend_from_slice(b"correct-horse and short");
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        std::fs::write(dir.path().join("clean"), "correct-hors short").unwrap();
        std::os::unix::fs::symlink("begin", dir.path().join("link")).unwrap();
        let found = leaks(dir.path(), &[secret, short.clone()]).unwrap();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["/begin", "/border", "/later"]);
        assert!(leaks(dir.path(), &[short]).unwrap().is_empty());
    }

    #[test]
    fn output_is_redacted() {
        let secrets = ["tops3cret\n", "two-lines\r\nof-secret\n", "abc", "tops3cret-longer", ""];
        let secrets: Vec<Secret> = secrets.map(|text| Secret::new(text.into()).unwrap()).to_vec();
        let redactor = Redactor::new(&secrets);
        assert_eq!(redactor.longest(), 16);
        for (line, shown) in [
            ("nothing", "nothing"),
            ("tops3cret", "****"),
            ("a tops3crettops3cret b", "a ******** b"),
            ("tops3cret-longer!", "****!"),
            ("two-lines then of-secret", "**** then ****"),
            ("tops3cre abc", "tops3cre abc"),
            ("", ""),
        ] {
            assert_eq!(String::from_utf8(redactor.redact(line.into())).unwrap(), shown, "{line}");
        }
    }
}
