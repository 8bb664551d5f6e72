//! A store, a build context and a way to run `rbuild` on them; everything vanishes with the test.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a test waits for something that is known to come.
const PATIENCE: Duration = Duration::from_secs(120);

/// The `rbuild` under test: `RBUILD_TEST_BINARY`, else the one that was built with the tests.
pub fn rbuild_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let other = std::env::var_os("RBUILD_TEST_BINARY").map(PathBuf::from);
        other.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_rbuild")))
    })
}

/// The workspace's root.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .and_then(Path::parent)
        .expect("crates/rbuild is two levels down")
}

/// Says that a test does nothing, and why; `scripts/test.sh` counts these lines.
pub fn skip(test: &str, reason: &str) {
    println!("skipped: {test}: {reason}");
}

/// Whether a program is installed.
pub fn installed(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(program).exists())
}

/// A base image as an OCI layout, made by `scripts/make-base.sh` once and kept below target/.
fn base(kind: &str) -> PathBuf {
    let dir = workspace().join("target/testbases");
    let made = Command::new(workspace().join("scripts/make-base.sh"))
        .arg(&dir)
        .arg(kind)
        .env("RBUILD", rbuild_binary())
        .stdin(Stdio::null())
        .output()
        .expect("make-base.sh starts");
    assert!(made.status.success(), "make-base.sh {kind}: {}", String::from_utf8_lossy(&made.stderr));
    dir.join(kind)
}

/// busybox and nothing else: the base of nearly every test.
pub fn busybox() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| base("busybox"))
}

/// A minimal Debian with apt.
pub fn debian() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| base("debian"))
}

/// A directory whose file system overlayfs accepts as an upper directory: below target/, else /dev/shm.
fn scratch_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let below_target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let candidates = [below_target.clone(), PathBuf::from("/dev/shm")];
        let works = |dir: &&PathBuf| {
            let script = r#"d=$(mktemp -d "$1/probe.XXXXXX") && trap 'rm -rf "$d"' EXIT
                mkdir "$d/l" "$d/u" "$d/w" "$d/m" &&
                unshare --mount mount -t overlay overlay -o "lowerdir=$d/l,upperdir=$d/u,workdir=$d/w" "$d/m""#;
            let probe = Command::new("bash").args(["-c", script, "-"]).arg(dir).output();
            probe.is_ok_and(|out| out.status.success())
        };
        candidates.iter().find(works).cloned().unwrap_or(below_target)
    })
}

/// One test's directory: `context/`, `store/`, `home/`, and whatever the test adds.
pub struct TestContext {
    dir: tempfile::TempDir,
    base: &'static Path,
    environment: Vec<(String, String)>,
}

impl TestContext {
    /// An empty context and an empty store; `FROM base` is busybox.
    pub fn new() -> Self {
        Self::with_base(busybox())
    }

    /// A context whose `FROM base` is the given layout.
    pub fn with_base(base: &'static Path) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("e2e-")
            .tempdir_in(scratch_dir())
            .expect("a directory can be made");
        for name in ["context", "home"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir, base, environment: Vec::new() }
    }

    /// A context with this Dockerfile.
    pub fn of(dockerfile: &str) -> Self {
        let context = Self::new();
        context.dockerfile(dockerfile);
        context
    }

    /// A path in the test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// A path in the build context.
    pub fn in_context(&self, name: &str) -> PathBuf {
        self.path("context").join(name)
    }

    /// Writes the context's Dockerfile.
    pub fn dockerfile(&self, text: &str) -> &Self {
        self.file("Dockerfile", text)
    }

    /// Writes a file of the context with mode 0644, and the directories above it.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.in_context(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        self.mode(name, 0o644)
    }

    /// Changes the mode of a file of the context.
    pub fn mode(&self, name: &str, mode: u32) -> &Self {
        std::fs::set_permissions(self.in_context(name), std::fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    /// Makes a symbolic link in the context.
    pub fn symlink(&self, name: &str, target: &str) -> &Self {
        let path = self.in_context(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
        self
    }

    /// Sets a variable of the environment of every `rbuild` of this test.
    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// `rbuild` with a clean environment, its working directory being the test's.
    pub fn command(&self) -> Command {
        let mut command = Command::new(rbuild_binary());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("RBUILD_ROOT", self.store())
            .env("RUST_BACKTRACE", "0")
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// `rbuild build` of the context with plain progress and `base` as a named context.
    pub fn build_command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = self.command();
        command.args(["build", "--progress=plain", "--build-context"]);
        command.arg(format!("base=oci-layout://{}", self.base.display()));
        command.args(args);
        let names_context =
            |arg: &S| arg.as_ref() == "-" || arg.as_ref() == "context" || arg.as_ref() == "other";
        if !args.iter().any(names_context) {
            command.arg("context");
        }
        command
    }

    /// Builds; add `context`, `other` or `-` to `args` to name the build context.
    pub fn build<S: AsRef<OsStr>>(&self, args: &[S]) -> Run {
        run(self.build_command(args), b"")
    }

    /// Builds with something on standard input.
    pub fn build_with_stdin<S: AsRef<OsStr>>(&self, args: &[S], stdin: &[u8]) -> Run {
        run(self.build_command(args), stdin)
    }

    /// Another command of `rbuild`.
    pub fn rbuild<S: AsRef<OsStr>>(&self, args: &[S]) -> Run {
        let mut command = self.command();
        command.args(args);
        run(command, b"")
    }

    /// Builds a Dockerfile, which must work, and gives what a RUN in it printed to `/out`.
    pub fn output_of(&self, dockerfile: &str, args: &[&str]) -> String {
        self.dockerfile(dockerfile);
        let dest = self.path("output");
        drop(std::fs::remove_dir_all(&dest));
        let output = format!("type=local,dest={}", dest.display());
        let mut all = vec!["-o", &output];
        all.extend(args);
        self.build(&all).ok();
        std::fs::read_to_string(dest.join("out")).expect("the build writes /out")
    }

    /// Starts a build without waiting for it; its output goes to `NAME.log`.
    pub fn start(&self, name: &str, args: &[&str]) -> Running {
        let log = self.path(&format!("{name}.log"));
        let file = std::fs::File::create(&log).unwrap();
        let child = self.build_command(args).stdout(file.try_clone().unwrap()).stderr(file).spawn();
        Running { child: child.expect("rbuild starts"), log }
    }

    /// Fails if a mount below the test's directory, or an unfinished file in the store, is left.
    pub fn assert_nothing_left(&self) {
        self.assert_no_mounts();
        let ingest = self.store().join("ingest");
        let left: Vec<_> = std::fs::read_dir(&ingest)
            .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "left in the store: {left:?}");
    }

    /// Fails if a mount below the test's directory is left.
    pub fn assert_no_mounts(&self) {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let mine = self.dir.path().to_str().unwrap();
        let left: Vec<_> = mounts.lines().filter(|line| line.contains(mine)).collect();
        assert!(left.is_empty(), "stale mounts: {left:?}");
    }
}

/// Bytes that no codec makes smaller, the same every time.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Runs a command to its end.
pub fn run(mut command: Command, stdin: &[u8]) -> Run {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if !stdin.is_empty() {
        command.stdin(Stdio::piped());
    }
    let shown = format!("{command:?}");
    let mut child = command.spawn().expect("the command starts");
    let pipe = child.stdin.take();
    let out = std::thread::scope(|scope| {
        if let Some(mut pipe) = pipe {
            // A command that does not read all of its input is not at fault.
            scope.spawn(move || drop(pipe.write_all(stdin)));
        }
        child.wait_with_output().expect("the command ends")
    });
    Run {
        command: shown,
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        bytes: out.stdout,
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Run {
    pub command: String,
    pub code: i32,
    pub stdout: String,
    pub bytes: Vec<u8>,
    pub stderr: String,
}

impl Run {
    /// It must have worked.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}{}", self.command, self.stdout, self.stderr);
        self
    }

    /// It must have failed with this exit code, and its last words must contain these.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}\n{}{}", self.command, self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is missing in:\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// (executed, cached) of the last line.
    #[track_caller]
    pub fn steps(&self) -> (usize, usize) {
        let line = self.stderr.lines().rev().find(|line| line.contains(" executed, "));
        let line = line.unwrap_or_else(|| panic!("no summary in:\n{}", self.stderr));
        let number = |before: &str| {
            let text = line.split(before).next().unwrap().split_whitespace().last().unwrap();
            text.parse().unwrap_or_else(|_| panic!("no number before `{before}` in {line}"))
        };
        (number(" executed"), number(" cached"))
    }

    /// How often a text is in the output.
    pub fn count(&self, text: &str) -> usize {
        self.stderr.matches(text).count()
    }

    /// The names of the steps that were executed, e.g. `[1/2] RUN make`.
    pub fn executed(&self) -> Vec<String> {
        let named = |line: &str| {
            let (number, name) = line.strip_prefix('#')?.split_once(' ')?;
            name.starts_with('[').then(|| (number.to_owned(), name.to_owned()))
        };
        let mut names: Vec<(String, String)> = Vec::new();
        for found in self.stderr.lines().filter_map(named) {
            if !names.contains(&found) {
                names.push(found);
            }
        }
        let done = |number: &str| self.stderr.contains(&format!("#{number} DONE"));
        let is_step = |name: &str| !name.starts_with("[internal]") && !name.starts_with("[context");
        names
            .into_iter()
            .filter(|(number, name)| done(number) && is_step(name))
            .map(|(_, name)| name)
            .collect()
    }
}

/// A build under way; killed when dropped.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// What it printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until it printed this.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        self.wait_until(text, |running| running.log().contains(text));
    }

    /// Waits until a condition holds.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}:\n{}", self.log());
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() || condition(self), "ended ({ended:?}) before {what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Sends a signal, e.g. `INT`.
    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end; -1 stands for a signal.
    pub fn end(mut self) -> (i32, String) {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        (code, self.log())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until no process has this text in its command line.
#[track_caller]
pub fn assert_no_process(text: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let alive: Vec<String> = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(text))
            .collect();
        if alive.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "still running: {alive:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
