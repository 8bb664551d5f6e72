//! A store, a build context with a busybox, and a way to build in them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &str = "sh cat ls echo touch rm ln mv stat sleep grep test env id true dd wc df chmod nc readlink date mount mknod mkdir";

/// Every Dockerfile begins with this.
const BASE: &str = "FROM scratch AS base\nCOPY bin /bin\nFROM base AS main\n";

pub(crate) struct Bed {
    dir: tempfile::TempDir,
}

/// How a build ended.
pub(crate) struct Built {
    pub(crate) ok: bool,
    /// Everything it said.
    pub(crate) said: String,
}

impl Built {
    /// Steps that were not taken from the cache.
    pub(crate) fn executed(&self) -> usize {
        let (_, rest) = self.said.rsplit_once(" steps: ").expect(&self.said);
        rest.split_once(" executed").unwrap().0.parse().unwrap()
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert!(self.ok, "{}", self.said);
        self
    }

    #[track_caller]
    pub(crate) fn failed_with(self, text: &str) {
        assert!(!self.ok && self.said.contains(text), "expected `{text}`:\n{}", self.said);
    }
}

impl From<Output> for Built {
    fn from(output: Output) -> Self {
        let said = [output.stdout, output.stderr].concat();
        Self { ok: output.status.success(), said: String::from_utf8_lossy(&said).into_owned() }
    }
}

/// Where steps can be run; says why not otherwise.
pub(crate) fn bed(test: &str) -> Option<Bed> {
    let reason = if !Path::new(BUSYBOX).exists() {
        format!("{BUSYBOX} is missing (package busybox-static)")
    } else {
        let bed = Bed::new();
        let built = bed.build("RUN true", &[]);
        if built.ok { return Some(bed) } else { built.said }
    };
    assert!(reason.contains("CAP_SYS_ADMIN") || reason.contains("is missing"), "{reason}");
    println!("skipped: {test}: {reason}");
    None
}

impl Bed {
    fn new() -> Self {
        let bed = Self { dir: tempfile::tempdir().unwrap() };
        let bin = bed.context().join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(BUSYBOX, bin.join("busybox")).unwrap();
        for applet in APPLETS.split(' ') {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        bed
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.path("context")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Writes a file of the context.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.context().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn command(&self, dockerfile: &str, args: &[&str]) -> Command {
        let name = format!("Dockerfile.{}", dockerfile.len() * 1000 + args.len());
        let file = self.path(&name);
        fs::write(&file, format!("{BASE}{dockerfile}\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        command.args(["build", "--progress", "plain", "-f"]).arg(file).args(args).arg(self.context());
        command.env("RBUILD_ROOT", self.store()).env_remove("SSH_AUTH_SOCK").env_remove("SOURCE_DATE_EPOCH");
        command
    }

    /// Builds a Dockerfile that goes on from the base.
    pub(crate) fn build(&self, dockerfile: &str, args: &[&str]) -> Built {
        self.command(dockerfile, args).output().unwrap().into()
    }

    #[track_caller]
    pub(crate) fn builds(&self, dockerfile: &str) -> Built {
        self.build(dockerfile, &[]).succeeded()
    }

    pub(crate) fn start(&self, dockerfile: &str, args: &[&str]) -> Child {
        self.command(dockerfile, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Builds and gives the directory with the result's files.
    #[track_caller]
    pub(crate) fn files(&self, dockerfile: &str, args: &[&str]) -> PathBuf {
        let out = self.path("out");
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).unwrap();
        let output = format!("type=local,dest={}", out.display());
        self.build(dockerfile, &[args, &["-o", &output]].concat()).succeeded();
        out
    }
}

/// Files below `dir` that hold `needle`.
pub(crate) fn holding(dir: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            found.extend(holding(&path, needle));
        } else if meta.is_file() && fs::read(&path).unwrap().windows(needle.len()).any(|part| part == needle)
        {
            found.push(path);
        }
    }
    found
}
