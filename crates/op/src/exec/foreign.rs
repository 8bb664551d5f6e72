//! Programs for another kind of machine.
//!
//! The kernel is asked first: it executes them if an interpreter is registered in binfmt_misc. If it refuses, the step's
//! first process is executed by an emulator of QEMU's, if there is one on this machine.

use crate::error::OpFailure;
use rbuild_oci::Platform;
use rbuild_runtime::{MountKind, MountSpec, RuntimeError, Spec};
use rbuild_solver::OpError;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where the emulator is in the step's root, as in BuildKit.
const EMULATOR: &str = "/dev/.buildkit_qemu_emulator";
/// Where the kernel tells what is registered.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// An architecture: GOARCH, QEMU's name, and the beginning of its ELF files: class, byte order, machine.
struct Architecture(&'static str, &'static str, u8, u8, u16);

const ARCHITECTURES: [Architecture; 13] = [
    Architecture("386", "i386", 1, 1, 3),
    Architecture("amd64", "x86_64", 2, 1, 62),
    Architecture("arm", "arm", 1, 1, 40),
    Architecture("arm64", "aarch64", 2, 1, 183),
    Architecture("loong64", "loongarch64", 2, 1, 258),
    Architecture("mips", "mips", 1, 2, 8),
    Architecture("mips64", "mips64", 2, 2, 8),
    Architecture("mips64le", "mips64el", 2, 1, 8),
    Architecture("mipsle", "mipsel", 1, 1, 8),
    Architecture("ppc64", "ppc64", 2, 2, 21),
    Architecture("ppc64le", "ppc64le", 2, 1, 21),
    Architecture("riscv64", "riscv64", 2, 1, 243),
    Architecture("s390x", "s390x", 2, 2, 22),
];

impl Architecture {
    fn of(name: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|known| known.0 == name)
    }

    /// The first bytes of its programs, as far as handlers look at them.
    fn header(&self) -> [u8; 20] {
        let mut header = [0; 20];
        header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', self.2, self.3, 1]);
        let number = |value: u16| if self.3 == 1 { value.to_le_bytes() } else { value.to_be_bytes() };
        // ET_EXEC
        header[16..18].copy_from_slice(&number(2));
        header[18..].copy_from_slice(&number(self.4));
        header
    }
}

/// Whether a step is for another kind of machine than this one. Variants are the same kind.
fn is_foreign(platform: &Platform) -> bool {
    platform.normalized().architecture != Platform::host().architecture
}

/// A program that the kernel would not execute.
pub(super) struct Refused<'a> {
    program: String,
    platform: &'a Platform,
}

impl<'a> Refused<'a> {
    /// If that is what an error says of a step for another kind of machine.
    pub(super) fn of(error: &OpError, platform: &'a Platform) -> Option<Self> {
        if !is_foreign(platform) {
            return None;
        }
        match error.downcast_ref()? {
            RuntimeError::ExecFormat { program } => Some(Self { program: program.clone(), platform }),
            // A handler without the flag looks for its interpreter in the step's root.
            RuntimeError::NoInterpreter { program } => {
                let (_, handler) = handler_for(&platform.architecture)?;
                let missing = handler.enabled && !handler.flags.contains('F');
                missing.then(|| Self { program: program.clone(), platform })
            }
            _ => None,
        }
    }

    /// BuildKit's own emulator, which follows programs into those they execute, else QEMU's.
    pub(super) fn emulator(&self, dirs: &[PathBuf]) -> Option<PathBuf> {
        let name = Architecture::of(&self.platform.architecture)?.1;
        let names = [format!("buildkit-qemu-{name}"), format!("qemu-{name}-static"), format!("qemu-{name}")];
        let paths = names.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
        let mut usable = paths.filter_map(|path| fs::canonicalize(path).ok());
        usable.find(|path| path.is_absolute() && is_executable(path) && is_static(path))
    }

    /// What to know about an emulated step.
    pub(super) fn remark(&self, emulator: &Path) -> String {
        let shown = emulator.display();
        if emulator.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"buildkit-qemu-")) {
            return format!("runs for {} with {shown}", self.platform);
        }
        format!(
            "runs for {} with {shown}, but programs that {} executes do not: {}",
            self.platform,
            self.program,
            self.lacks()
        )
    }

    /// That nothing executes it.
    pub(super) fn failure(&self, args: &[String]) -> OpFailure {
        OpFailure::Foreign {
            command: args.join(" "),
            program: self.program.clone(),
            platform: self.platform.to_string(),
            architecture: self.platform.architecture.clone(),
            host: Platform::host().to_string(),
            lacks: self.lacks(),
        }
    }

    /// What the kernel lacks.
    fn lacks(&self) -> String {
        let name = &self.platform.architecture;
        if !Path::new(BINFMT).join("register").exists() {
            return format!(
                "no interpreter for {name} can be registered: binfmt_misc is not mounted at {BINFMT}"
            );
        }
        match handler_for(name) {
            None => format!("no interpreter for {name} is registered in {BINFMT}"),
            Some((entry, handler)) => handler.lacks(&entry),
        }
    }
}

/// What is registered for an architecture, with its name.
fn handler_for(architecture: &str) -> Option<(String, Handler)> {
    let header = Architecture::of(architecture)?.header();
    let entries = fs::read_dir(BINFMT).into_iter().flatten().flatten();
    let mut handlers = entries.filter_map(|entry| {
        let handler = Handler::parse(&fs::read_to_string(entry.path()).ok()?)?;
        handler.matches(&header).then(|| (entry.file_name().to_string_lossy().into_owned(), handler))
    });
    handlers.next()
}

/// Mounts the emulator, and has it execute the step's program.
pub(super) fn apply(emulator: &Path, spec: &mut Spec) {
    let kind = MountKind::Bind { source: emulator.to_owned(), subpath: String::new() };
    spec.mounts.push(MountSpec { target: EMULATOR.to_owned(), kind, readonly: true });
    spec.emulator = Some(EMULATOR.to_owned());
}

/// An entry of binfmt_misc (Documentation/admin-guide/binfmt-misc.rst).
#[derive(Debug, Default, PartialEq, Eq)]
struct Handler {
    enabled: bool,
    interpreter: String,
    flags: String,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

impl Handler {
    /// `None` if it goes by file names, or is no entry.
    fn parse(text: &str) -> Option<Self> {
        let mut handler = Self { enabled: text.starts_with("enabled\n"), ..Self::default() };
        for line in text.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "interpreter" => value.clone_into(&mut handler.interpreter),
                "flags:" => value.clone_into(&mut handler.flags),
                "offset" if value != "0" => return None,
                "magic" => handler.magic = bytes(value)?,
                "mask" => handler.mask = bytes(value)?,
                _ => {}
            }
        }
        (!handler.magic.is_empty()).then_some(handler)
    }

    fn matches(&self, header: &[u8]) -> bool {
        let mask = |place: usize| self.mask.get(place).copied().unwrap_or(0xff);
        let same = |(place, magic): (usize, &u8)| {
            header.get(place).is_none_or(|byte| byte & mask(place) == magic & mask(place))
        };
        self.magic.iter().enumerate().all(same)
    }

    fn lacks(&self, name: &str) -> String {
        let Self { enabled, interpreter, flags, .. } = self;
        if !enabled {
            return format!("the handler {name} in {BINFMT} is disabled (`echo 1 > {BINFMT}/{name}`)");
        }
        if !flags.contains('F') {
            return format!(
                "the handler {name} in {BINFMT} has no flag F, so that {interpreter} would have to be in the image"
            );
        }
        format!("the handler {name} in {BINFMT} did not accept it")
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs =
        hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    pairs.collect()
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether a program of this machine needs no dynamic loader, which the step's root does not have: 64-bit ELF files
/// without PT_INTERP.
fn is_static(path: &Path) -> bool {
    use std::os::unix::fs::FileExt as _;
    const PT_INTERP: u32 = 3;
    let Ok(file) = fs::File::open(path) else { return false };
    let mut header = [0; 64];
    if file.read_exact_at(&mut header, 0).is_err() || header[..5] != [0x7f, b'E', b'L', b'F', 2] {
        return false;
    }
    let short = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let mut start = [0; 8];
    start.copy_from_slice(&header[32..40]);
    let (start, size, count) = (u64::from_ne_bytes(start), u64::from(short(54)), u64::from(short(56)));
    (0..count).all(|number| {
        let mut kind = [0; 4];
        let at = number.checked_mul(size).and_then(|offset| start.checked_add(offset));
        at.is_some_and(|at| file.read_exact_at(&mut kind, at).is_ok())
            && u32::from_ne_bytes(kind) != PT_INTERP
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AARCH64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    //
    #[test]
    fn handlers_are_told_by_the_programs_they_are_for() {
        let handler = Handler::parse(AARCH64).unwrap();
        assert!(
            handler.enabled && handler.flags == "POCF" && handler.interpreter.ends_with("aarch64-binfmt-P")
        );
        let matching: Vec<&str> =
            ARCHITECTURES.iter().filter(|arch| handler.matches(&arch.header())).map(|arch| arch.0).collect();
        assert_eq!(matching, ["arm64"]);
        assert_eq!(Handler::parse("enabled\ninterpreter /usr/bin/java\nflags: \nextension .jar\n"), None);
        let disabled = Handler::parse(&AARCH64.replace("enabled", "disabled")).unwrap();
        assert!(disabled.lacks("qemu-aarch64").contains("is disabled"));
        let unfixed = Handler::parse(&AARCH64.replace("POCF", "OC")).unwrap();
        assert!(unfixed.lacks("qemu-aarch64").contains("has no flag F"));
    }

    #[test]
    fn only_another_architecture_is_foreign() {
        let host = Platform::host();
        let variant = Platform { variant: Some("v2".into()), ..host.clone() };
        assert!(!is_foreign(&host) && !is_foreign(&variant));
        assert!(is_foreign(&Platform::linux("s390x")));
    }

    #[test]
    fn emulators_are_static_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |platform| Refused { program: "/bin/sh".into(), platform };
        let platform = Platform::linux("s390x");
        let dirs = [dir.path().to_owned()];
        assert_eq!(refused(&platform).emulator(&dirs), None);
        std::fs::write(dir.path().join("qemu-s390x-static"), "#!/bin/sh\n").unwrap();
        assert_eq!(refused(&platform).emulator(&dirs), None, "no program");
        std::fs::copy("/bin/busybox", dir.path().join("qemu-s390x")).unwrap();
        let found = refused(&platform).emulator(&dirs);
        if is_static(Path::new("/bin/busybox")) {
            assert_eq!(found, Some(dir.path().canonicalize().unwrap().join("qemu-s390x")));
        }
        assert!(!is_static(Path::new("/bin/true")), "it is dynamic");
    }
}
