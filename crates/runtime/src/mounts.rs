//! `/etc/hosts`, `/etc/resolv.conf` and the mounts of the spec.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, StatxFlags, Uid, chmodat, fchmod, fchown, fstat, fstatfs, mkdirat,
    openat, statx,
};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::error::Context;
use crate::overlay::mount_chain;
use crate::resolve::{Leaf, PROC_SUPER_MAGIC, create_in_root, open_in_root, open_source};
use crate::stubs::Stub;
use crate::system::{attach, clone_at, new_filesystem, new_memory_filesystem, parking_place};
use crate::{FileContent, MountKind, MountSpec, RuntimeError, Spec, sys};

/// What to do where a target cannot be made in another mount.
pub(crate) const READ_ONLY: &str =
    "it lies in a mount that is read-only: put it into what is mounted there, or mount that with rw";

/// A mount that is made and waits to be attached.
struct Prepared {
    origin: Origin,
    /// What to attach of it; empty for all.
    subpath: String,
    target: String,
    /// Whether it takes the permissions of the directory that it covers, as runc's tmpfs does.
    adapts: bool,
    /// Whether it is made read-only when everything is attached, so that there can be targets in it.
    seals: bool,
}

/// A mount that can be attached.
struct Part<'a> {
    mount: OwnedFd,
    target: &'a str,
    adapts: bool,
    seals: bool,
}

/// Which filesystem a mount is a part of.
enum Origin {
    Own(OwnedFd),
    /// One of those of [`PreparedMounts`].
    Private,
    Scripts,
}

/// Mounts made before the step's namespaces, all attached nowhere.
pub(crate) struct PreparedMounts {
    /// A tmpfs with `hosts`, `resolv.conf`, the empty directory `blank` and the files of the spec.
    private: OwnedFd,
    /// A tmpfs with those files of the spec that may be executed.
    scripts: Option<OwnedFd>,
    mounts: Vec<Prepared>,
}

/// Mounts of the step, to be attached once `/proc`, `/sys` and `/dev` are there.
pub(crate) struct Ready<'a> {
    mounts: Vec<Part<'a>>,
    /// An empty read-only directory, for masks.
    pub(crate) blank: OwnedFd,
}

/// Opens every source and makes every filesystem, while the host's paths are still there.
pub(crate) fn prepare(spec: &Spec, secrets: &[Vec<u8>]) -> Result<PreparedMounts, RuntimeError> {
    let private = memory(MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    for (name, content) in [("resolv.conf", &spec.resolv_conf), ("hosts", &spec.hosts)] {
        write_file(private.as_fd(), name, content).context("provide", format!("/etc/{name}"))?;
    }
    mkdirat(&private, "blank", Mode::from_raw_mode(0o555))
        .context("create", "an empty directory for masks")?;
    let mut scripts = None;
    let mut mounts = Vec::with_capacity(spec.mounts.len());
    for (number, mount) in spec.mounts.iter().enumerate() {
        mounts.push(match &mount.kind {
            MountKind::File { executable, .. } => {
                let (origin, dir) = match (executable, &mut scripts) {
                    (false, _) => (Origin::Private, &private),
                    (true, Some(made)) => (Origin::Scripts, &*made),
                    (true, none) => (Origin::Scripts, &*none.insert(memory(MountAttrFlags::empty())?)),
                };
                let subpath = format!("file.{number}");
                provide(dir.as_fd(), &subpath, mount, secrets)?;
                Prepared { origin, subpath, target: mount.target.clone(), adapts: false, seals: false }
            }
            _ => prepare_one(mount)?,
        });
    }
    for tmpfs in [Some(&private), scripts.as_ref()].into_iter().flatten() {
        sys::set_mount_attributes(tmpfs.as_fd(), sys::attr::RDONLY, false)
            .context("make read-only", "the step's own files")?;
    }
    Ok(PreparedMounts { private, scripts, mounts })
}

/// A tmpfs for files of this step, not to be swapped out where the kernel knows how (Linux 6.4).
fn memory(attributes: MountAttrFlags) -> Result<OwnedFd, RuntimeError> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | attributes;
    let make = |options: &[(&str, &str)], noswap| new_memory_filesystem(options, noswap, attributes);
    make(&[("mode", "755")], true)
        .or_else(|_| make(&[("mode", "755")], false))
        .context("mount", "a tmpfs for the step's own files")
}

/// Writes a [`MountKind::File`] as `name` below `dir`.
fn provide(
    dir: BorrowedFd<'_>,
    name: &str,
    mount: &MountSpec,
    secrets: &[Vec<u8>],
) -> Result<(), RuntimeError> {
    let MountKind::File { content, mode, uid, gid, .. } = &mount.kind else { return Ok(()) };
    let bytes = match content {
        FileContent::Text(text) => text.as_bytes(),
        FileContent::Secret(place) => secrets.get(*place).map(Vec::as_slice).ok_or_else(|| {
            RuntimeError::invalid("mounts", format!("there is no secret number {place} for {}", mount.target))
        })?,
    };
    let write = || -> Result<(), std::io::Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = std::fs::File::from(openat(dir, name, flags, Mode::from_raw_mode(0o600))?);
        std::io::Write::write_all(&mut file, bytes)?;
        fchown(&file, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?;
        Ok(fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?)
    };
    write().context("provide", &mount.target)
}

fn write_file(dir: BorrowedFd<'_>, name: &str, content: &str) -> Result<(), std::io::Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
    std::io::Write::write_all(&mut std::fs::File::from(file), content.as_bytes())
}

fn prepare_one(spec: &MountSpec) -> Result<Prepared, RuntimeError> {
    let readonly = if spec.readonly { sys::attr::RDONLY } else { 0 };
    let adapts = matches!(spec.kind, MountKind::Tmpfs { .. });
    let mut below = String::new();
    let (mount, attributes) = match &spec.kind {
        MountKind::Bind { source, subpath } => {
            let mut shown = source.to_string_lossy().into_owned();
            if !subpath.is_empty() {
                shown = format!("{shown}/{}", subpath.trim_start_matches('/'));
            }
            let opened = open_source(source, subpath).context("open mount source", &shown)?;
            (clone_at(opened.as_fd(), "").context("mount", &shown)?, readonly)
        }
        MountKind::Tmpfs { size, mode } => {
            let mode = format!("{:o}", mode & 0o7777);
            let size = size.map(|s| s.to_string());
            let options = [("mode", mode.as_str()), ("size", size.as_deref().unwrap_or_default())];
            let used = if size.is_some() { &options[..] } else { &options[..1] };
            let mount = new_filesystem("tmpfs", used, MountAttrFlags::empty())
                .context("mount tmpfs", &spec.target)?;
            (mount, sys::attr::NOSUID)
        }
        MountKind::Overlay { lower, scratch, subpath } => {
            below.clone_from(subpath);
            (mount_chain(lower, scratch.as_ref())?, readonly)
        }
        MountKind::File { .. } => {
            return Err(RuntimeError::invalid("mounts", "a file is provided, not mounted by itself"));
        }
    };
    sys::set_mount_attributes(mount.as_fd(), sys::attr::NODEV | attributes, false)
        .context("set mount attributes of", &spec.target)?;
    let seals = adapts && spec.readonly;
    Ok(Prepared { origin: Origin::Own(mount), subpath: below, target: spec.target.clone(), adapts, seals })
}

impl PreparedMounts {
    /// Parks what is only attached in part, and takes those parts (see [`parking_place`]).
    pub(crate) fn take_parts(&self, root: BorrowedFd<'_>) -> Result<Ready<'_>, RuntimeError> {
        let place = parking_place(root)?;
        let mut mounts = Vec::with_capacity(2 + self.mounts.len());
        attach(self.private.as_fd(), place.as_fd()).context("attach", "a tmpfs for /etc/hosts")?;
        for (name, target) in [("resolv.conf", "/etc/resolv.conf"), ("hosts", "/etc/hosts")] {
            let mount = clone_at(self.private.as_fd(), name).context("provide", target)?;
            mounts.push(Part { mount, target, adapts: false, seals: false });
        }
        let blank =
            clone_at(self.private.as_fd(), "blank").context("provide", "an empty directory for masks")?;
        attach(blank.as_fd(), place.as_fd()).context("attach", "an empty directory for masks")?;
        if let Some(scripts) = &self.scripts {
            attach(scripts.as_fd(), place.as_fd()).context("attach", "a tmpfs for scripts")?;
        }
        for Prepared { origin, subpath, target, adapts, seals } in &self.mounts {
            let mount = match origin {
                Origin::Own(mount) if subpath.is_empty() => {
                    rustix::io::fcntl_dupfd_cloexec(mount, 3).context("open mount source", target)?
                }
                Origin::Own(mount) => {
                    attach(mount.as_fd(), place.as_fd()).context("attach", subpath)?;
                    let below = open_in_root(mount.as_fd(), subpath, OFlags::PATH)
                        .context("open mount source", subpath)?;
                    clone_at(below.as_fd(), "").context("mount", subpath)?
                }
                Origin::Private => clone_at(self.private.as_fd(), subpath).context("provide", target)?,
                Origin::Scripts => {
                    let scripts = self.scripts.as_ref().unwrap_or(&self.private);
                    clone_at(scripts.as_fd(), subpath).context("provide", target)?
                }
            };
            mounts.push(Part { mount, target, adapts: *adapts, seals: *seals });
        }
        Ok(Ready { mounts, blank })
    }
}

impl Ready<'_> {
    /// Attaches everything below `root`, in order, making missing targets and recording them.
    pub(crate) fn attach(&self, root: BorrowedFd<'_>, stubs: &mut Vec<Stub>) -> Result<(), RuntimeError> {
        self.mounts.iter().try_for_each(|part| part.attach(root, stubs))?;
        self.mounts.iter().filter(|part| part.seals).try_for_each(|part| {
            sys::set_mount_attributes(part.mount.as_fd(), sys::attr::RDONLY, false)
                .context("make read-only", part.target)
        })
    }
}

impl Part<'_> {
    fn attach(&self, root: BorrowedFd<'_>, stubs: &mut Vec<Stub>) -> Result<(), RuntimeError> {
        let Part { mount, target, .. } = self;
        let is_dir = is_directory(mount).context("check the mount source of", *target)?;
        let mut made = Vec::new();
        let at = create_in_root(root, target, if is_dir { Leaf::Directory } else { Leaf::File }, &mut made);
        let is_new = !made.is_empty();
        // What is made in a cache mount stays there: whoever shares it may have mounted something on it meanwhile.
        made.retain(|made| mount_id(made.parent.as_fd()) == mount_id(root));
        Stub::record(made, stubs).context("record mount target", *target)?;
        let at = at.map_err(|error| {
            let failed = RuntimeError::setup("create mount target", *target, error);
            match error {
                Errno::ROFS => failed.with_remedy(READ_ONLY.to_owned()),
                _ => failed,
            }
        })?;
        check_target(root, at.as_fd(), target)?;
        if self.adapts && !is_new {
            let mode = fstat(&at).context("check mount target", *target)?.st_mode & 0o7777;
            chmodat(mount, ".", Mode::from_raw_mode(mode), AtFlags::empty()).context("mount", *target)?;
        }
        let same_kind = is_directory(&at).context("check mount target", *target)? == is_dir;
        attach(mount.as_fd(), at.as_fd()).map_err(|error| match (same_kind, is_dir) {
            (false, true) => RuntimeError::refused(format!(
                "cannot mount a directory at {target}, which is a file in the image: choose another target"
            )),
            (false, false) => RuntimeError::refused(format!(
                "cannot mount a file at {target}, which is a directory in the image: add the file's name to the target"
            )),
            (true, _) => RuntimeError::setup("mount", *target, error),
        })
    }
}

fn is_directory(fd: &OwnedFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

/// Names the mount that `fd` was opened in; `None` before Linux 5.8.
fn mount_id(fd: BorrowedFd<'_>) -> Option<u64> {
    let stat = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id)
}

/// A mount over the root, `/proc` or `/sys` would take the masks away (CVE-2019-16884, CVE-2023-27561).
fn check_target(root: BorrowedFd<'_>, at: BorrowedFd<'_>, shown: &str) -> Result<(), RuntimeError> {
    const SYSFS_MAGIC: u64 = 0x6265_6572;
    let kind = fstatfs(at).context("check mount target", shown)?.f_type as u64;
    let same = |a: Errno| RuntimeError::setup("check mount target", shown, a);
    let (here, top) = (fstat(at).map_err(same)?, fstat(root).map_err(same)?);
    if [PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&kind)
        || (here.st_dev, here.st_ino) == (top.st_dev, top.st_ino)
    {
        let message = format!("mount target {shown} is refused: nothing is mounted over /, /proc or /sys");
        return Err(RuntimeError::refused(message));
    }
    Ok(())
}
