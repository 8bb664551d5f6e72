use super::*;
use crate::LocalContext;
use proptest::prelude::*;
use rbuild_tree::{FileKind, Tree};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::os::unix::fs::MetadataExt as _;
use std::thread::sleep;
use std::time::Duration;

/// A context and the directory of its cache.
struct Room {
    root: tempfile::TempDir,
    cache: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn open(&self) -> LocalContext {
        let cache = StatCache::open(self.cache.path(), self.root.path());
        LocalContext::open(self.root.path(), None, Some(cache)).unwrap()
    }

    /// One build: all digests, by walk and one by one, and whether the cache was written.
    fn build(&self) -> (Vec<(TreePath, Digest)>, bool) {
        let context = self.open();
        let mut files = context.walk(&TreePath::root()).unwrap();
        files.retain(|(_, meta)| meta.kind == FileKind::Regular);
        let digests = context.digests(&files).unwrap();
        let single = self.open();
        for ((path, _), digest) in files.iter().zip(&digests) {
            assert_eq!(single.digest(path).unwrap(), *digest, "{path}");
        }
        assert_eq!(single.digests(&files).unwrap(), digests);
        let saved = context.save_stat_cache().unwrap();
        (files.into_iter().map(|(path, _)| path).zip(digests).collect(), saved)
    }

    /// The digests a build finds must be those of the bytes.
    fn check(&self) -> bool {
        let (digests, saved) = self.build();
        for (path, digest) in digests {
            assert_eq!(
                digest,
                Digest::of(std::fs::read(self.root.path().join(path.as_path())).unwrap()),
                "{path}"
            );
        }
        saved
    }

    fn cache_file(&self) -> PathBuf {
        let mut entries = std::fs::read_dir(self.cache.path()).unwrap();
        entries.next().unwrap().unwrap().path()
    }

    fn records(&self) -> Vec<String> {
        let table = Table::load(&self.cache_file());
        (0..table.count).map(|i| String::from_utf8_lossy(table.path(i).unwrap()).into_owned()).collect()
    }
}

/// Longer than the clock granularity that is reckoned with.
fn settle() {
    sleep(Duration::from_nanos(TICK_NANOS as u64 * 2));
}

fn restore_mtime(path: &Path, before: &std::fs::Metadata) {
    let time = Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

#[test]
fn a_second_build_reads_no_file() {
    let room = Room::new();
    std::fs::create_dir(room.at("d")).unwrap();
    for name in ["a", "d/b", "d-c"] {
        std::fs::write(room.at(name), name).unwrap();
    }
    settle();
    assert!(room.check());
    assert_eq!(room.records(), ["a", "d/b", "d-c"]);
    // Planted, to see where the answers come from.
    let mut table = Table::load(&room.cache_file());
    let end = table.bytes.len() - CHECKSUM;
    table.bytes[HEADER + 56] ^= 1;
    let checksum = Digest::of(&table.bytes[..end]);
    table.bytes[end..].copy_from_slice(checksum.as_bytes());
    std::fs::write(room.cache_file(), &table.bytes).unwrap();
    let (digests, saved) = room.build();
    assert!(!saved, "nothing changed, nothing is written");
    assert_ne!(digests[0].1, Digest::of("a"));
    assert_eq!(digests[1].1, Digest::of("d/b"));
    let without = LocalContext::open(room.root.path(), None, None).unwrap();
    assert_eq!(without.digest(&digests[0].0).unwrap(), Digest::of("a"));
}

#[test]
fn a_file_just_written_is_not_remembered() {
    let time = |seconds, nanos| Timestamp { seconds, nanos };
    for (ctime, now, past) in [
        (time(100, 5), time(100, 5), false),
        (time(100, 5), time(100, 20_000_005), false),
        (time(100, 5), time(100, 20_000_006), true),
        (time(100, 999_999_999), time(101, 0), false),
        (time(100, 5), time(200, 0), true),
        // From an inode that holds no nanoseconds, or by chance.
        (time(100, 0), time(101, 999_999_999), false),
        (time(100, 0), time(102, 1), true),
        // The clock was set back.
        (time(200, 5), time(100, 0), false),
        (time(-5, 1), time(-4, 0), true),
    ] {
        assert_eq!(is_past(ctime, now), past, "{ctime:?} at {now:?}");
    }
    let room = Room::new();
    std::fs::write(room.at("a"), "1").unwrap();
    settle();
    assert!(is_settled(std::fs::File::open(room.at("a")).unwrap()));
}

/// Every way to change bytes without changing size and mtime.
#[test]
fn a_change_that_hides_itself_is_seen() {
    type Trick = fn(&Room);
    let tricks: [(&str, Trick); 5] = [
        ("rewritten in place", |room| {
            let before = std::fs::metadata(room.at("a")).unwrap();
            std::fs::write(room.at("a"), "xxxx").unwrap();
            restore_mtime(&room.at("a"), &before);
        }),
        ("replaced by a prepared file", |room| {
            let before = std::fs::metadata(room.at("a")).unwrap();
            std::fs::write(room.at("new"), "yyyy").unwrap();
            restore_mtime(&room.at("new"), &before);
            settle();
            std::fs::rename(room.at("new"), room.at("a")).unwrap();
        }),
        ("swapped with a file of the same times", |room| {
            let before = std::fs::metadata(room.at("a")).unwrap();
            restore_mtime(&room.at("b"), &before);
            settle();
            room.check();
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(CWD, room.at("a"), CWD, room.at("b"), flags).unwrap();
        }),
        ("a directory renamed over", |room| {
            std::fs::rename(room.at("d"), room.at("old")).unwrap();
            std::fs::rename(room.at("e"), room.at("d")).unwrap();
        }),
        ("written through another name", |room| {
            let before = std::fs::metadata(room.at("a")).unwrap();
            std::fs::hard_link(room.at("a"), room.at("other")).unwrap();
            std::fs::write(room.at("other"), "zzzz").unwrap();
            restore_mtime(&room.at("other"), &before);
        }),
    ];
    for (what, trick) in tricks {
        let room = Room::new();
        for (name, bytes) in [("a", "aaaa"), ("b", "bbbb"), ("d/f", "dddd"), ("e/f", "eeee")] {
            std::fs::create_dir_all(room.at(name).parent().unwrap()).unwrap();
            std::fs::write(room.at(name), bytes).unwrap();
        }
        settle();
        assert!(room.check(), "{what}");
        assert!(!room.check(), "{what}");
        trick(&room);
        room.check();
        settle();
        room.check();
    }
}

#[test]
fn a_damaged_cache_is_an_empty_one() {
    let room = Room::new();
    std::fs::write(room.at("a"), "aaaa").unwrap();
    settle();
    assert!(room.check());
    let good = std::fs::read(room.cache_file()).unwrap();
    assert_eq!(Table::load(&room.cache_file()).count, 1);
    for bytes in [&good[..0], &good[..20], &good[..good.len() - 1], b"garbage", &[0xFF; 200]] {
        std::fs::write(room.cache_file(), bytes).unwrap();
        assert_eq!(Table::load(&room.cache_file()).count, 0);
        assert!(room.check(), "it is written anew");
    }
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        assert!(Table::check(bytes).is_none(), "byte {at}");
    }
}

#[test]
fn files_that_are_gone_are_forgotten_in_time() {
    let room = Room::new();
    for n in 0..SPARE_UNSEEN + 50 {
        std::fs::write(room.at(&format!("f{n}")), "x").unwrap();
    }
    settle();
    assert!(room.check());
    for n in 10..SPARE_UNSEEN + 50 {
        std::fs::remove_file(room.at(&format!("f{n}"))).unwrap();
    }
    std::fs::write(room.at("g"), "y").unwrap();
    settle();
    assert!(room.check());
    assert_eq!(room.records().len(), 11 + SPARE_UNSEEN + 11);
    assert!(!room.check());
}

#[test]
fn writers_at_the_same_time_leave_a_good_file() {
    let room = Room::new();
    for n in 0..40 {
        std::fs::write(room.at(&format!("f{n}")), "x").unwrap();
    }
    settle();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let room = &room;
            scope.spawn(move || {
                for n in 0..10 {
                    let context = room.open();
                    let path = TreePath::clamped(format!("f{}", usize::from(thread) * 10 + n)).unwrap();
                    assert_eq!(context.digest(&path).unwrap(), Digest::of("x"));
                    context.save_stat_cache().unwrap();
                }
            });
        }
    });
    assert!(!room.records().is_empty());
    assert_eq!(std::fs::read_dir(room.cache.path()).unwrap().count(), 1, "no temporary file is left");
    room.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any sequence of changes, with builds in between as fast as they come.
    #[test]
    fn digests_are_never_stale(changes in prop::collection::vec((0u8..6, 0u8..3, 0u8..3), 1..40)) {
        let room = Room::new();
        let name = |n: u8| room.at(&format!("f{n}"));
        let stamp = Timespec { tv_sec: 1_700_000_000, tv_nsec: 1 };
        let stamp = Timestamps { last_access: stamp, last_modification: stamp };
        for (what, a, b) in changes {
            match what {
                0 | 1 => {
                    let _ = std::fs::write(name(a), [b]);
                    let _ = rustix::fs::utimensat(CWD, name(a), &stamp, AtFlags::empty());
                }
                2 => {
                    let _ = std::fs::rename(name(a), name(b));
                }
                3 => {
                    let _ = std::fs::hard_link(name(a), name(b));
                }
                4 => settle(),
                _ => {
                    room.check();
                }
            }
        }
        room.check();
    }
}

/// A capability set later must be seen, though the bytes are the same.
#[test]
fn a_capability_is_no_less_current_than_the_bytes() {
    let room = Room::new();
    std::fs::write(room.at("a"), "aaaa").unwrap();
    settle();
    assert!(room.check());
    let found = |room: &Room| room.open().walk(&TreePath::root()).unwrap()[0].1.xattrs.len();
    assert_eq!(found(&room), 0);
    let value = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = rustix::fs::lsetxattr(room.at("a"), CAPABILITY, &value, rustix::fs::XattrFlags::empty());
    if let Err(error) = set {
        let _ = writeln!(io::stderr(), "skipped: a_capability_is_no_less_current_than_the_bytes: {error}");
        return;
    }
    assert_eq!(found(&room), 1);
    settle();
    assert!(room.check());
    assert_eq!(found(&room), 1, "remembered as one that has it");
    rustix::fs::lremovexattr(room.at("a"), CAPABILITY).unwrap();
    assert_eq!(found(&room), 0);
}
