//! Random edits of a context.

use crate::mapper::Mapper;
use crate::random::Random;
use crate::source::{CAPABILITY, RULES};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// Sizes of files: nothing, little, one page, more than one read.
const SIZES: [usize; 6] = [0, 1, 100, 4096, 70_000, 300_000];
/// The time of all files at first.
const BEGIN: i64 = 1_600_000_000;
/// Directories that stay directories.
const KEPT_DIRS: [&str; 2] = ["src", "src/sub"];
/// What is named by a recipe and stays a file.
const KEPT_FILES: [&str; 3] = ["solo", "w0", ".dockerignore"];
/// `VFS_CAP_REVISION_2` with cap_net_raw permitted, as setcap writes it.
const NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A context to begin with. Two of them differ in bytes and in nothing else.
pub fn create(dir: &Path, random: &mut Random) {
    for name in ["src/sub/deep", "lib"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    for (at, size) in SIZES.into_iter().enumerate() {
        write_new(&dir.join(format!("src/f{at}")), &random.bytes(size));
    }
    for name in [
        "src/sub/g0",
        "src/sub/g1.log",
        "src/sub/deep/h0",
        "lib/a",
        "lib/b",
        "extra0",
        "w0",
        "w1",
        "w2",
        "solo",
    ] {
        write_new(&dir.join(name), &random.bytes(300));
    }
    write_new(&dir.join(".dockerignore"), b"# nothing\n");
    symlink("src/f0", dir.join("link")).unwrap();
    symlink("../w0", dir.join("lib/link")).unwrap();
}

fn write_new(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    set_time(path, Timespec { tv_sec: BEGIN, tv_nsec: 0 });
}

fn set_time(path: &Path, time: Timespec) {
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Does something to `path` and gives it its old modification time again, as `touch -r` does.
fn keeping_time(path: &Path, edit: impl FnOnce()) {
    let meta = fs::symlink_metadata(path).unwrap();
    edit();
    set_time(path, Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() });
}

/// What is in a context, by kind.
struct Listing {
    files: Vec<PathBuf>,
    dirs: Vec<PathBuf>,
    links: Vec<PathBuf>,
}

impl Listing {
    fn of(dir: &Path) -> Self {
        let mut found = Self { files: Vec::new(), dirs: Vec::new(), links: Vec::new() };
        found.add(dir);
        found.files.retain(|path| !path.ends_with(".dockerignore"));
        found
    }

    fn add(&mut self, dir: &Path) {
        let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            match fs::symlink_metadata(&path).unwrap() {
                meta if meta.is_dir() => {
                    self.add(&path);
                    self.dirs.push(path);
                }
                meta if meta.is_symlink() => self.links.push(path),
                _ => self.files.push(path),
            }
        }
    }
}

/// Edits one context.
pub struct Editor<'a> {
    pub dir: &'a Path,
    pub other: &'a Path,
    pub random: &'a mut Random,
    pub mapper: Option<&'a mut Mapper>,
    /// For new names.
    pub number: u64,
}

impl Editor<'_> {
    fn is_kept(&self, path: &Path) -> bool {
        let name = path.strip_prefix(self.dir).unwrap();
        KEPT_DIRS.iter().chain(&KEPT_FILES).any(|kept| Path::new(kept) == name)
            // What a wildcard matches stays what it is, or goes.
            || name.to_str().unwrap().starts_with('w')
    }

    /// Makes one random edit and says which; `None` if it does not apply.
    pub fn edit(&mut self) -> Option<String> {
        let found = Listing::of(self.dir);
        let file = self.random.pick(&found.files).clone();
        let at = self.random.below(19);
        let what = match at {
            0..=2 => self.rewrite(&file)?,
            3 => self.resize(&file),
            4 => self.swap_files(&file, &found)?,
            5 => self.chmod(&file, &[0o644, 0o600, 0o755, 0o664, 0o4755]),
            6 => {
                let dir = self.random.pick(&found.dirs).clone();
                self.chmod(&dir, &[0o755, 0o700, 0o775, 0o1777])
            }
            7 => self.map_anew(&file)?,
            8 => self.map_held(&file)?,
            9 => self.retarget(&found)?,
            10 => self.add(&found),
            11 => self.remove(&found)?,
            12 => self.directory_or_file(&found)?,
            13 => self.hard_link(&file, &found)?,
            14 => self.ignore(),
            15 => self.swap_directories(&found)?,
            16 => self.recreate(&file),
            17 => self.capability(&file),
            _ => self.swap_contexts(),
        };
        Some(what)
    }

    /// An edit that must not matter: times, the owner, the inode.
    pub fn neutral_edit(&mut self) -> String {
        let found = Listing::of(self.dir);
        let file = self.random.pick(&found.files).clone();
        let meta = fs::metadata(&file).unwrap();
        match self.random.below(4) {
            0 => {
                let tv_sec = BEGIN + self.random.below(100_000_000) as i64;
                set_time(&file, Timespec { tv_sec, tv_nsec: 5 });
                format!("touch {}", file.display())
            }
            1 => {
                let dir = self.random.pick(&found.dirs);
                set_time(dir, Timespec { tv_sec: BEGIN + self.random.below(1_000_000) as i64, tv_nsec: 0 });
                format!("touch {}", dir.display())
            }
            // A change of owner takes setuid and capabilities away.
            2 if meta.mode() & 0o6000 == 0 && !has_capability(&file) => {
                std::os::unix::fs::chown(&file, Some(1000), Some(1000)).unwrap();
                format!("chown {}", file.display())
            }
            _ if meta.nlink() == 1 && !has_capability(&file) => {
                let copy = self.dir.with_extension("copy");
                fs::copy(&file, &copy).unwrap();
                fs::set_permissions(&copy, meta.permissions()).unwrap();
                fs::rename(&copy, &file).unwrap();
                format!("replaced by a copy: {}", file.display())
            }
            _ => "nothing".to_owned(),
        }
    }

    /// Other bytes of the same number, in place, and the old time.
    fn rewrite(&mut self, file: &Path) -> Option<String> {
        let size = fs::metadata(file).unwrap().len() as usize;
        if size == 0 {
            return None;
        }
        let bytes = self.random.bytes(size);
        keeping_time(file, || {
            let open = fs::OpenOptions::new().write(true).open(file).unwrap();
            open.write_all_at(&bytes, 0).unwrap();
        });
        Some(format!("rewrite in place {} ({size})", file.display()))
    }

    /// Longer in place, or another file by rename. No file shrinks in place: a mapping of it could be kept.
    fn resize(&mut self, file: &Path) -> String {
        let size = *self.random.pick(&SIZES);
        let bytes = self.random.bytes(size);
        if self.random.one_in(2) {
            let old = fs::metadata(file).unwrap().len();
            if old < 2_000_000 {
                fs::OpenOptions::new().append(true).open(file).unwrap().write_all_at(&bytes, 0).unwrap();
            }
            return format!("append {size} to {}", file.display());
        }
        let fresh = self.dir.with_extension("fresh");
        write_new(&fresh, &bytes);
        fs::rename(&fresh, file).unwrap();
        format!("replaced by another of {size}: {}", file.display())
    }

    /// Two files change places and times.
    fn swap_files(&mut self, file: &Path, found: &Listing) -> Option<String> {
        let size = fs::metadata(file).unwrap().len();
        let same = |path: &&PathBuf| fs::metadata(path).unwrap().len() == size && *path != file;
        let others: Vec<&PathBuf> = found.files.iter().filter(same).collect();
        if others.is_empty() {
            return None;
        }
        let other = (*self.random.pick(&others)).clone();
        let times = [file, &other].map(|path| fs::metadata(path).unwrap());
        swap(file, &other, &self.dir.with_extension("swap"));
        for (path, meta) in [file, &other].into_iter().zip(times) {
            set_time(path, Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() });
        }
        Some(format!("swap {} and {}", file.display(), other.display()))
    }

    fn chmod(&mut self, path: &Path, modes: &[u32]) -> String {
        let mode = *self.random.pick(modes);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        format!("chmod {mode:o} {}", path.display())
    }

    fn map_anew(&mut self, file: &Path) -> Option<String> {
        let size = fs::metadata(file).unwrap().len();
        let mapper = self.mapper.as_mut().filter(|_| size > 0)?;
        let (at, byte) = (self.random.below(size), self.random.below(256) as u8);
        keeping_time(file, || mapper.write_anew(file, at, byte));
        Some(format!("mapped write to {} at {at}", file.display()))
    }

    /// A write through a mapping that lives across builds, with msync.
    fn map_held(&mut self, file: &Path) -> Option<String> {
        let size = fs::metadata(file).unwrap().len();
        let mapper = self.mapper.as_mut().filter(|_| size > 0)?;
        if mapper.held.len() > 5 {
            let old = mapper.held.first().cloned()?;
            mapper.release(&old);
        }
        mapper.hold(file);
        let byte = self.random.below(256) as u8;
        keeping_time(file, || {
            mapper.write_held(file, 0, byte);
            mapper.sync(file);
        });
        Some(format!("write through a kept mapping of {}", file.display()))
    }

    fn retarget(&mut self, found: &Listing) -> Option<String> {
        if found.links.is_empty() {
            return None;
        }
        let link = self.random.pick(&found.links);
        let target = *self.random.pick(&["src/f0", "src/f1", "nowhere", "..", "/etc/passwd"]);
        let fresh = self.dir.with_extension("link");
        symlink(target, &fresh).unwrap();
        set_time(&fresh, Timespec { tv_sec: BEGIN, tv_nsec: 0 });
        fs::rename(&fresh, link).unwrap();
        Some(format!("symlink {} to {target}", link.display()))
    }

    fn add(&mut self, found: &Listing) -> String {
        let dir = if self.random.one_in(4) { self.dir } else { self.random.pick(&found.dirs) };
        let name = *self.random.pick(&["extra", "new", "w", "n"]);
        let path = dir.join(format!("{name}{}{}", self.number, self.random.pick(&["", ".log"])));
        // Of directories, a wildcard would match what is in them.
        if name != "w" && self.random.one_in(4) {
            fs::create_dir(&path).unwrap();
        } else if name != "w" && self.random.one_in(4) {
            symlink("src/f0", &path).unwrap();
        } else {
            let size = *self.random.pick(&SIZES);
            write_new(&path, &self.random.bytes(size));
        }
        format!("add {}", path.display())
    }

    fn remove(&mut self, found: &Listing) -> Option<String> {
        let all: Vec<&PathBuf> = found.files.iter().chain(&found.dirs).chain(&found.links).collect();
        let path = (*self.random.pick(&all)).clone();
        let name = path.strip_prefix(self.dir).unwrap();
        if KEPT_DIRS.iter().chain(&KEPT_FILES).any(|kept| Path::new(kept) == name) || found.files.len() < 10 {
            return None;
        }
        remove(&path);
        Some(format!("remove {}", path.display()))
    }

    fn directory_or_file(&mut self, found: &Listing) -> Option<String> {
        let all: Vec<&PathBuf> = found.files.iter().chain(&found.dirs).collect();
        let path = (*self.random.pick(&all)).clone();
        if self.is_kept(&path) || found.files.len() < 10 {
            return None;
        }
        let is_dir = fs::metadata(&path).unwrap().is_dir();
        remove(&path);
        if is_dir {
            write_new(&path, &self.random.bytes(50));
            return Some(format!("a file in place of the directory {}", path.display()));
        }
        fs::create_dir(&path).unwrap();
        write_new(&path.join("inner"), &self.random.bytes(50));
        Some(format!("a directory in place of the file {}", path.display()))
    }

    fn hard_link(&mut self, file: &Path, found: &Listing) -> Option<String> {
        let place = self.random.pick(&found.files).clone();
        let is_w = |path: &Path| path.file_name().is_some_and(|name| name.to_str().unwrap().starts_with('w'));
        // Recipes with several sources and hard links between them are looked at elsewhere.
        if place == file || is_w(&place) || is_w(file) || self.is_kept(&place) || self.is_kept(file) {
            return None;
        }
        let fresh = self.dir.with_extension("hard");
        fs::hard_link(file, &fresh).unwrap();
        fs::rename(&fresh, &place).unwrap();
        // Renaming one name of a file to another one does nothing.
        drop(fs::remove_file(&fresh));
        Some(format!("{} is {}", place.display(), file.display()))
    }

    fn ignore(&mut self) -> String {
        let mut text = String::new();
        for (rule, _) in RULES {
            if self.random.one_in(3) {
                text.push_str(rule);
                text.push('\n');
            }
        }
        let path = self.dir.join(".dockerignore");
        // In place, with the old time: the rules are read each time.
        keeping_time(&path, || fs::write(&path, &text).unwrap());
        format!(".dockerignore is {text:?}")
    }

    fn swap_directories(&mut self, found: &Listing) -> Option<String> {
        let (one, other) = (self.random.pick(&found.dirs).clone(), self.random.pick(&found.dirs).clone());
        if one.starts_with(&other) || other.starts_with(&one) {
            return None;
        }
        if [&one, &other].iter().any(|path| self.is_kept(path)) {
            return None;
        }
        swap(&one, &other, &self.dir.with_extension("swap"));
        Some(format!("swap {} and {}", one.display(), other.display()))
    }

    /// Gone and made anew with the same size and time: often with the same inode too.
    fn recreate(&mut self, file: &Path) -> String {
        let meta = fs::metadata(file).unwrap();
        let bytes = self.random.bytes(meta.len() as usize);
        fs::remove_file(file).unwrap();
        fs::write(file, &bytes).unwrap();
        fs::set_permissions(file, meta.permissions()).unwrap();
        set_time(file, Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() });
        format!("made anew {} ({})", file.display(), meta.len())
    }

    fn capability(&mut self, file: &Path) -> String {
        if has_capability(file) {
            rustix::fs::removexattr(file, CAPABILITY).unwrap();
            return format!("no capability for {}", file.display());
        }
        // A file system without them leaves the test without this edit.
        let _ = rustix::fs::setxattr(file, CAPABILITY, &NET_RAW, XattrFlags::empty());
        format!("capability for {}", file.display())
    }

    fn swap_contexts(&mut self) -> String {
        swap(self.dir, self.other, &self.dir.with_extension("swap"));
        "swap the contexts".to_owned()
    }
}

fn has_capability(file: &Path) -> bool {
    rustix::fs::getxattr(file, CAPABILITY, &mut [0u8; 64]).is_ok()
}

fn swap(one: &Path, other: &Path, spare: &Path) {
    fs::rename(one, spare).unwrap();
    fs::rename(other, one).unwrap();
    fs::rename(spare, other).unwrap();
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path).unwrap().is_dir() {
        true => fs::remove_dir_all(path).unwrap(),
        false => fs::remove_file(path).unwrap(),
    }
}
