//! A store of its own, a web server, and git repositories.

use crate::support::Image;
use rbuild_testkit::FileServer;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What every test gets.
pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) server: FileServer,
}

/// How a build ended.
pub(crate) struct Built {
    pub(crate) code: i32,
    pub(crate) said: String,
}

impl Built {
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, message: &str) {
        assert_eq!(self.code, code, "{}", self.said);
        assert!(self.said.contains(message), "`{message}` is not in:\n{}", self.said);
    }

    #[track_caller]
    pub(crate) fn succeeded(&self) -> &Self {
        assert_eq!(self.code, 0, "{}", self.said);
        self
    }

    /// Whether no step was executed.
    pub(crate) fn all_cached(&self) -> bool {
        self.said.contains(": 0 executed,")
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self {
            dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            server: FileServer::start(),
        };
        for name in ["context", "git"] {
            fs::create_dir(lab.path(name)).unwrap();
        }
        lab.server.serve_git(lab.path("git"), None);
        lab
    }

    /// `Lab::new`, or `None` with a line that says so when there is no git.
    pub(crate) fn with_git(test: &str) -> Option<Self> {
        if Command::new("git").args(["http-backend", "--version"]).stdout(Stdio::null()).output().is_ok() {
            return Some(Self::new());
        }
        println!("skipped: {test}: git is not installed");
        None
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// `rbuild` with these arguments.
    pub(crate) fn run(&self, args: &[&str]) -> Built {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.dir.path());
        command.env("RBUILD_ROOT", self.store()).current_dir(self.dir.path()).stdin(Stdio::null());
        let out = command.output().expect("rbuild starts");
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        Built { code: out.status.code().unwrap_or(-1), said }
    }

    /// Builds `app` from scratch and these lines.
    pub(crate) fn build_with(&self, lines: &str, args: &[&str]) -> Built {
        fs::write(self.path("context/Dockerfile"), format!("FROM scratch\n{lines}\n")).unwrap();
        let fixed = ["build", "--progress=plain", "-t", "app"];
        self.run(&[&fixed[..], args, &["context"]].concat())
    }

    pub(crate) fn build(&self, lines: &str) -> Built {
        self.build_with(lines, &[])
    }

    /// The image that these lines make.
    #[track_caller]
    pub(crate) fn image(&self, lines: &str) -> Image {
        self.build(lines).succeeded();
        self.app()
    }

    /// The image that was built last.
    pub(crate) fn app(&self) -> Image {
        Image::read(&self.store(), "docker.io/library/app:latest")
    }

    /// Runs git in a repository and gives what it prints.
    #[track_caller]
    pub(crate) fn git(&self, repository: &str, args: &[&str]) -> String {
        let dir = self.path("git").join(repository);
        fs::create_dir_all(&dir).unwrap();
        let mut command = Command::new("git");
        command.args([
            "-c",
            "protocol.file.allow=always",
            "-c",
            "commit.gpgsign=false",
            "-c",
            "tag.gpgsign=false",
        ]);
        command.args(args).current_dir(dir).env_clear().env("PATH", "/usr/bin:/bin");
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@b");
            command.env(format!("GIT_{who}_DATE"), "1600000000 +0000");
        }
        let out = command.output().unwrap();
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// A work tree `name` whose repository is served as `/git/name/.git`.
    pub(crate) fn repository(&self, name: &str) {
        self.git(name, &["init", "-q", "-b", "main", "."]);
    }

    pub(crate) fn write(&self, repository: &str, file: &str, content: &str) {
        let path = self.path("git").join(repository).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Commits everything and gives the commit's id.
    #[track_caller]
    pub(crate) fn commit(&self, repository: &str) -> String {
        self.git(repository, &["add", "-A"]);
        self.git(repository, &["commit", "-q", "-m", "x", "--allow-empty"]);
        self.git(repository, &["rev-parse", "HEAD"])
    }

    pub(crate) fn remote(&self, repository: &str) -> String {
        self.server.url(&format!("/git/{repository}/.git"))
    }
}

/// Files below `dir` that hold `needle`.
pub(crate) fn holding(dir: &Path, needle: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_file() {
                let bytes = fs::read(&path).unwrap();
                if bytes.windows(needle.len()).any(|part| part == needle.as_bytes()) {
                    found.push(path);
                }
            }
        }
    }
    found
}
