//! Programs for another kind of machine.
//!
//! The kernel is asked first: it executes them if an interpreter is registered in binfmt_misc. If it refuses, the step's
//! first process is executed by an emulator of QEMU's, if there is one on this machine.

use super::{ExecStep, binfmt};
use crate::error::{ForeignProgram, OpFailure};
use crate::layer::Root;
use rbuild_oci::Platform;
use rbuild_runtime::{MountKind, MountSpec, RuntimeError, Spec};
use rbuild_solver::{Inputs, OpError, StepContext};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where the emulator is in the step's root, as in BuildKit.
const EMULATOR: &str = "/dev/.buildkit_qemu_emulator";

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
                let looked_for = binfmt::looks_in_the_root(&platform.architecture);
                looked_for.then(|| Self { program: program.clone(), platform })
            }
            _ => None,
        }
    }

    /// BuildKit's own emulator, which follows programs into those they execute, else QEMU's.
    pub(super) fn emulator(&self, dirs: &[PathBuf]) -> Option<PathBuf> {
        let name = binfmt::qemu_name(&self.platform.architecture)?;
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
            binfmt::lacks(&self.platform.architecture)
        )
    }

    /// That nothing executes it.
    pub(super) fn failure(&self, args: &[String]) -> OpFailure {
        OpFailure::Foreign(Box::new(ForeignProgram {
            command: args.join(" "),
            program: self.program.clone(),
            platform: self.platform.clone(),
            host: Platform::host(),
            lacks: binfmt::lacks(&self.platform.architecture),
        }))
    }
}

impl ExecStep {
    /// Runs the step, which the kernel would not, with an emulator.
    pub(super) async fn emulate(
        &self,
        step: &StepContext,
        inputs: &Inputs<Root>,
        refused: &Refused<'_>,
    ) -> Result<Root, OpError> {
        let Some(emulator) = refused.emulator(&self.engine.settings.emulators) else {
            return Err(refused.failure(&self.op.args).into());
        };
        step.note(refused.remark(&emulator));
        self.attempt(step, inputs, Some(&emulator)).await.map_err(|error| self.not_run(error))
    }
}

/// Mounts the emulator, and has it execute the step's program.
pub(super) fn apply(emulator: &Path, spec: &mut Spec) {
    let kind = MountKind::Bind { source: emulator.to_owned(), subpath: String::new() };
    spec.mounts.push(MountSpec { target: EMULATOR.to_owned(), kind, readonly: true });
    spec.emulator = Some(EMULATOR.to_owned());
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
