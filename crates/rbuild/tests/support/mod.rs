//! Base images, builds and a look at what came out, read without rbuild's own crates.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "helpers of tests panic and say what is skipped, as tests do"
)]
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "every test binary uses its part of this module"
)]

mod image;

pub use image::{Entry, Image};

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Time of every file of a base image.
pub const BASE_TIME: i64 = 1_400_000_000;

/// /etc/passwd of the base images.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
";

/// /etc/group of the base images.
const GROUP: &str = "root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
lp:x:7:
mail:x:8:
wheel:x:10:root
www-data:x:33:
users:x:100:
nobody:x:65534:
";

/// A store with base images, shared by the tests of one binary.
pub struct Site {
    root: PathBuf,
    store: PathBuf,
    next: AtomicUsize,
}

/// How a build ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    /// Standard output and standard error.
    pub output: String,
}

impl Outcome {
    /// The output of a build that must fail with exit code `code` and say `message`.
    #[track_caller]
    pub fn refused(&self, code: i32, message: &str) {
        assert_eq!(self.code, code, "{}", self.output);
        assert!(self.output.contains(message), "`{message}` is not in:\n{}", self.output);
    }
}

/// The site of this process, or `None` with a `skipped` line when images cannot be built here.
pub fn site(test: &str) -> Option<&'static Site> {
    static SITE: OnceLock<Result<Site, String>> = OnceLock::new();
    match SITE.get_or_init(Site::new) {
        Ok(site) => Some(site),
        Err(reason) => {
            println!("skipped: {test}: {reason}");
            None
        }
    }
}

fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists())
}

impl Site {
    fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("not root".into());
        }
        let busybox = busybox().ok_or("busybox-static is not installed")?;
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for old in fs::read_dir(tmp).into_iter().flatten().flatten() {
            let name = old.file_name().to_string_lossy().into_owned();
            if name.strip_prefix("site-").is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                drop(fs::remove_dir_all(old.path()));
            }
        }
        let root = tmp.join(format!("site-{}", std::process::id()));
        fs::create_dir_all(&root).map_err(|e| e.to_string())?;
        let site = Self { store: root.join("store"), root, next: AtomicUsize::new(0) };
        site.make_busybox(&busybox);
        let probe = site.context();
        probe.file("Dockerfile", "FROM busybox\nRUN true\n");
        match probe.build(&[]) {
            Outcome { code: 0, .. } => Ok(site),
            Outcome { output, .. } => Err(format!("RUN does not work here: {output}")),
        }
    }

    /// An empty build context.
    pub fn context(&self) -> Context<'_> {
        let dir = self.root.join(format!("context-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&dir).unwrap();
        Context { site: self, dir }
    }

    /// The store, an OCI layout.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// A busybox like the official one: /bin with every applet, a few users, nothing else.
    fn make_busybox(&self, busybox: &Path) {
        let base = self.context();
        base.file("root/etc/passwd", PASSWD).file("root/etc/group", GROUP);
        base.file("root/etc/nsswitch.conf", "passwd: files\n").file("root/etc/os-release", "NAME=test\n");
        let root = base.dir.join("root");
        for (name, mode) in [
            ("bin", 0o755),
            ("home", 0o755),
            ("root", 0o700),
            ("tmp", 0o1777),
            ("usr/bin", 0o755),
            ("usr/local/bin", 0o755),
            ("usr/sbin", 0o755),
            ("var/spool/mail", 0o755),
            ("var/www", 0o755),
        ] {
            fs::create_dir_all(root.join(name)).unwrap();
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        let applets = Command::new(busybox).arg("--list").output().unwrap();
        for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|name| *name != "busybox") {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        set_times(&root, BASE_TIME);
        base.file("Dockerfile", "FROM scratch\nCOPY root/ /\nCMD [\"sh\"]\n");
        let names =
            ["busybox", "alpine", "mirror.gcr.io/busybox", "mirror.gcr.io/alpine", "quay.io/libpod/busybox"];
        let tags: Vec<&str> = names.iter().flat_map(|name| ["-t", *name]).collect();
        let built = base.build(&tags);
        assert_eq!(built.code, 0, "{}", built.output);
    }
}

/// A build context.
pub struct Context<'a> {
    site: &'a Site,
    pub dir: PathBuf,
}

impl Context<'_> {
    /// The store of its site.
    pub fn store(&self) -> &Path {
        &self.site.store
    }

    /// Writes a file with mode 0644 and makes the directories above it.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.mode(name, 0o644)
    }

    /// Makes a directory and those above it.
    pub fn directory(&self, name: &str) -> &Self {
        fs::create_dir_all(self.dir.join(name)).unwrap();
        self
    }

    pub fn symlink(&self, name: &str, target: &str) -> &Self {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    pub fn mode(&self, name: &str, mode: u32) -> &Self {
        fs::set_permissions(self.dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    /// A tar archive in the context, of what `files` writes.
    pub fn archive(&self, name: &str, write: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> &Self {
        let mut builder = tar::Builder::new(Vec::new());
        write(&mut builder);
        self.file(name, builder.into_inner().unwrap())
    }

    /// `rbuild build` of this context.
    pub fn build(&self, args: &[&str]) -> Outcome {
        self.build_with(args, &[])
    }

    /// [`Self::build`] with more variables in the environment.
    pub fn build_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        command.args(["build", "--progress=plain"]).args(args).arg(&self.dir);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &self.site.root);
        command.env("RBUILD_ROOT", &self.site.store).envs(environment.iter().copied()).stdin(Stdio::null());
        let out = command.output().expect("rbuild starts");
        let text = [out.stdout, out.stderr].concat();
        Outcome { code: out.status.code().unwrap_or(-1), output: String::from_utf8_lossy(&text).into_owned() }
    }

    /// Builds and reads the image, which must come out.
    #[track_caller]
    pub fn image(&self, args: &[&str]) -> Image {
        let name = format!("test.local/{}", self.dir.file_name().unwrap().to_string_lossy());
        let built = self.build(&[args, &["-t", &name]].concat());
        assert_eq!(built.code, 0, "{}", built.output);
        Image::read(&self.site.store, &format!("{name}:latest"))
    }

    /// The image of the context that is this archive, a file of this context.
    #[track_caller]
    pub fn image_of_archive(&self, name: &str) -> Image {
        let tag = format!("test.local/{}-archive", self.dir.file_name().unwrap().to_string_lossy());
        let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        command.args(["build", "--progress=plain", "-t", &tag, "-"]).env_clear();
        command
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.site.root)
            .env("RBUILD_ROOT", &self.site.store);
        let archive = fs::File::open(self.dir.join(name)).unwrap();
        let out = command.stdin(archive).output().expect("rbuild starts");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Image::read(&self.site.store, &format!("{tag}:latest"))
    }

    /// [`Self::image`] of this Dockerfile.
    #[track_caller]
    pub fn image_of(&self, dockerfile: &str) -> Image {
        self.file("Dockerfile", dockerfile).image(&[])
    }

    /// [`Self::build`] of this Dockerfile.
    pub fn build_of(&self, dockerfile: &str) -> Outcome {
        self.file("Dockerfile", dockerfile).build(&[])
    }
}

/// A short fingerprint (FNV-1a).
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Gives `path` and everything below it this modification time.
pub fn set_times(path: &Path, seconds: i64) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            set_times(&entry.unwrap().path(), seconds);
        }
    }
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Copies a tree as it is, symlinks included.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        let kind = fs::symlink_metadata(&from).unwrap().file_type();
        if kind.is_dir() {
            copy_tree(&from, &to);
        } else if kind.is_symlink() {
            symlink(fs::read_link(&from).unwrap(), &to).unwrap();
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// Where the conformance data is.
pub fn conformance_data() -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::parent).unwrap();
    let named = std::env::var_os("RBUILD_CONFORMANCE").map(PathBuf::from);
    [named, Some(workspace.join("../shared/conformance"))].into_iter().flatten().find(|dir| dir.is_dir())
}
