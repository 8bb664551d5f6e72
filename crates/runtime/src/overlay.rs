//! Root filesystems out of layer directories, as mounts that are attached nowhere.
//!
//! Such a mount lives as long as a descriptor of it (or of something in it): when its holder is killed, it is
//! gone, with no entry in any mount table to clean up.

use std::collections::HashSet;
use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, stat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change, open_tree,
};

use crate::error::Context;
use crate::{RuntimeError, Scratch, sys};

/// Options that keep the upper directory in the plain format that layers are packed from: whole files instead of
/// metadata-only copies, copied directories instead of redirects, no index of hard links beside it. `xino=off`
/// keeps inode numbers those of the store's filesystem.
const PLAIN: [(&str, &str); 4] =
    [("index", "off"), ("metacopy", "off"), ("redirect_dir", "off"), ("xino", "off")];
/// Leaves out the sync of the whole upper filesystem when the overlay goes away: durability is the business of
/// whoever commits the layer, and the work directory it marks as spent is never used again.
const VOLATILE: &str = "volatile";
/// Most lower directories overlayfs takes.
const MAX_LOWER: usize = 500;
/// Longest value `fsconfig(2)` takes.
const MAX_FSCONFIG_VALUE: usize = 255;
/// Longest option string `mount(2)` takes: one page with its NUL.
const MAX_OPTIONS: usize = 4095;

/// Mounts `lower` (base first) with `scratch` on top, attached nowhere. Without `scratch` it is read-only.
/// Device nodes are dead on every such mount (see `system.rs`).
///
/// This process's working directory changes.
pub(crate) fn mount_chain(lower: &[PathBuf], scratch: Option<&Scratch>) -> Result<OwnedFd, RuntimeError> {
    let lower = distinct(lower)?;
    match (lower.as_slice(), scratch) {
        // Overlayfs wants a lower directory; with nothing below, its upper directory is all there is.
        ([], Some(scratch)) => return clone_mount(&scratch.upper, sys::attr::NODEV),
        ([only], None) => return clone_mount(only, sys::attr::NODEV | sys::attr::RDONLY),
        ([], None) => return Err(RuntimeError::refused("an overlay mount of no directory")),
        (many, _) if many.len() > MAX_LOWER => {
            let message = format!("{} layers: overlayfs takes at most {MAX_LOWER}", many.len());
            return Err(RuntimeError::refused(message));
        }
        _ => {}
    }
    // One page of options, or 255 bytes a value, is little for absolute paths: they are given relative to their
    // common directory.
    let own = scratch.map(|s| [s.upper.as_path(), s.work.as_path()]);
    let base = common_directory(lower.iter().copied().chain(own.into_iter().flatten()));
    rustix::process::chdir(&base).context("enter", base.to_string_lossy())?;
    let relative = |p: &Path| match p.strip_prefix(&base) {
        Ok(rest) if !rest.as_os_str().is_empty() => rest.to_string_lossy().into_owned(),
        _ => p.to_string_lossy().into_owned(),
    };
    let layers = Layers {
        lower: lower.iter().rev().map(|p| relative(p)).collect(),
        scratch: scratch.map(|s| (relative(&s.upper), relative(&s.work))),
    };
    match layers.mount_new() {
        Err(Failed::Unsupported) => layers.mount_old(&base),
        Err(Failed::Kernel(errno, said)) => Err(failed(errno, said, &base)),
        Ok(fd) => Ok(fd),
    }
}

/// A mount of an existing file or directory, attached nowhere.
fn clone_mount(path: &Path, attributes: u64) -> Result<OwnedFd, RuntimeError> {
    let shown = path.to_string_lossy();
    let fd = open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        .context("mount", &shown)?;
    sys::set_mount_attributes(fd.as_fd(), attributes, false).context("set mount attributes of", &shown)?;
    Ok(fd)
}

/// Drops directories that come again further up: overlayfs answers a repeated one with ELOOP.
fn distinct(lower: &[PathBuf]) -> Result<Vec<&Path>, RuntimeError> {
    let mut seen = HashSet::with_capacity(lower.len());
    let mut kept = Vec::with_capacity(lower.len());
    for path in lower.iter().rev() {
        let stat = stat(path).context("find the layer", path.to_string_lossy())?;
        if seen.insert((stat.st_dev, stat.st_ino)) {
            kept.push(path.as_path());
        }
    }
    kept.reverse();
    Ok(kept)
}

/// The deepest directory that all paths are below of; absolute paths only.
fn common_directory<'a>(paths: impl Iterator<Item = &'a Path>) -> PathBuf {
    let parents = paths.map(|p| p.parent().unwrap_or(p).to_path_buf());
    let shared = |a: PathBuf, b: PathBuf| -> PathBuf {
        a.components().zip(b.components()).take_while(|(x, y)| x == y).map(|(x, _)| x).collect()
    };
    parents.reduce(shared).unwrap_or_else(|| PathBuf::from("/"))
}

/// Directories of one overlay mount, relative to the working directory; topmost first.
struct Layers {
    lower: Vec<String>,
    scratch: Option<(String, String)>,
}

enum Failed {
    /// The kernel lacks the interface (`lowerdir+` came with Linux 6.8).
    Unsupported,
    /// The kernel refused, with what it said about it.
    Kernel(Errno, String),
}

impl Layers {
    fn mount_new(&self) -> Result<OwnedFd, Failed> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| match e {
            Errno::NOSYS => Failed::Unsupported,
            other => Failed::Kernel(other, String::new()),
        })?;
        let refused = |e: Errno| Failed::Kernel(e, kernel_messages(&context));
        for (i, lower) in self.lower.iter().enumerate() {
            if lower.len() > MAX_FSCONFIG_VALUE {
                return Err(Failed::Unsupported);
            }
            match fsconfig_set_string(&context, "lowerdir+", lower.as_str()) {
                Err(Errno::INVAL) if i == 0 => return Err(Failed::Unsupported),
                other => other.map_err(refused)?,
            }
        }
        if let Some((upper, work)) = &self.scratch {
            fsconfig_set_string(&context, "upperdir", escape(upper, &['\\'])).map_err(refused)?;
            fsconfig_set_string(&context, "workdir", escape(work, &['\\'])).map_err(refused)?;
            fsconfig_set_flag(&context, VOLATILE).map_err(refused)?;
        }
        for (key, value) in PLAIN.into_iter().chain([("source", "overlay")]) {
            fsconfig_set_string(&context, key, value).map_err(refused)?;
        }
        fsconfig_create(&context).map_err(refused)?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
        if self.scratch.is_none() {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(refused)
    }

    /// With `mount(2)`, which attaches: so in a mount namespace that goes away with this process.
    fn mount_old(&self, base: &Path) -> Result<OwnedFd, RuntimeError> {
        let options = self.options();
        if options.len() > MAX_OPTIONS {
            let message = format!(
                "the paths of {} layers do not fit into one mount call; Linux 6.8 or later, or a shorter store path, is needed",
                self.lower.len()
            );
            return Err(RuntimeError::refused(message));
        }
        sys::unshare_mounts().context("create a mount namespace", "")?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .context("make mounts private", "/")?;
        let target = self.scratch.as_ref().map_or(&self.lower[0], |(upper, _)| upper);
        let data =
            std::ffi::CString::new(options).map_err(|_| RuntimeError::invalid("path", "NUL in a path"))?;
        mount("overlay", target.as_str(), "overlay", MountFlags::NODEV, data.as_c_str())
            .map_err(|e| failed(e, String::new(), base))?;
        // The working directory is below the mount point's parent, so this opens what is mounted there now.
        let fd = clone_mount(&base.join(target), sys::attr::NODEV)?;
        rustix::mount::unmount(target.as_str(), rustix::mount::UnmountFlags::DETACH)
            .context("detach the overlay of", target)?;
        if self.scratch.is_none() {
            sys::set_mount_attributes(fd.as_fd(), sys::attr::RDONLY, false)
                .context("make read-only", target)?;
        }
        Ok(fd)
    }

    fn options(&self) -> String {
        let lower: Vec<String> = self.lower.iter().map(|l| escape(l, &['\\', ':', ','])).collect();
        let mut options = format!("lowerdir={}", lower.join(":"));
        if let Some((upper, work)) = &self.scratch {
            let (upper, work) = (escape(upper, &['\\', ',']), escape(work, &['\\', ',']));
            // Writing to a String cannot fail.
            let _ = write!(options, ",upperdir={upper},workdir={work},{VOLATILE}");
        }
        for (key, value) in PLAIN {
            let _ = write!(options, ",{key}={value}");
        }
        options
    }
}

fn escape(path: &str, special: &[char]) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// What the kernel logged into the filesystem context, one message a read.
fn kernel_messages(context: &OwnedFd) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = rustix::io::read(context, &mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..n]);
        said.push(line.trim().trim_start_matches("e ").to_owned());
    }
    said.join("; ")
}

fn failed(errno: Errno, said: String, base: &Path) -> RuntimeError {
    let said = match errno {
        Errno::INVAL if said.is_empty() => {
            "the store must be on a filesystem that overlayfs can write to, such as ext4, xfs, btrfs or tmpfs, \
             and the work directory must not have been used before"
                .to_owned()
        }
        Errno::NODEV => "overlayfs is missing from this kernel: modprobe overlay".to_owned(),
        _ => said,
    };
    RuntimeError::setup("mount the layers below", base.to_string_lossy(), errno).with_remedy(said)
}

#[cfg(test)]
mod tests;
