//! Writes through memory mappings, by a Python process: tests have no `unsafe`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const PROGRAM: &str = r#"
import mmap, os, sys
held = {}
for line in sys.stdin:
    verb, at, byte, path = line.rstrip("\n").split(" ", 3)
    if verb == "map":
        fd = os.open(path, os.O_RDWR)
        m = mmap.mmap(fd, 0)
        m[int(at)] = int(byte)
        m.close(); os.close(fd)
    elif verb == "hold":
        fd = os.open(path, os.O_RDWR)
        held[path] = mmap.mmap(fd, 0); os.close(fd)
    elif verb == "write":
        held[path][int(at)] = int(byte)
    elif verb == "sync":
        held[path].flush()
    elif verb == "drop":
        held.pop(path).close()
    print("ok", flush=True)
"#;

/// A process that maps files.
pub struct Mapper {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Files whose mapping it keeps.
    pub held: BTreeSet<PathBuf>,
}

impl Mapper {
    /// `None` when there is no Python here.
    pub fn start() -> Option<Self> {
        let mut command = Command::new("python3");
        command.args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().ok()?;
        let (stdin, stdout) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        Some(Self { child, stdin, stdout, held: BTreeSet::new() })
    }

    fn tell(&mut self, verb: &str, at: u64, byte: u8, path: &Path) {
        writeln!(self.stdin, "{verb} {at} {byte} {}", path.display()).unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        assert_eq!(answer, "ok\n", "{verb} {}", path.display());
    }

    /// Changes a byte through a mapping that is made and closed for it.
    pub fn write_anew(&mut self, path: &Path, at: u64, byte: u8) {
        self.tell("map", at, byte, path);
    }

    /// Maps a file and keeps the mapping.
    pub fn hold(&mut self, path: &Path) {
        if self.held.insert(path.to_owned()) {
            self.tell("hold", 0, 0, path);
        }
    }

    /// Changes a byte through the mapping that is kept.
    pub fn write_held(&mut self, path: &Path, at: u64, byte: u8) {
        self.tell("write", at, byte, path);
    }

    /// Writes back what was changed: msync.
    pub fn sync(&mut self, path: &Path) {
        self.tell("sync", 0, 0, path);
    }

    /// Forgets a mapping.
    pub fn release(&mut self, path: &Path) {
        if self.held.remove(path) {
            self.tell("drop", 0, 0, path);
        }
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
