//! To a directory and back.

use super::*;
use crate::LocalBackend;
use crate::mounts::MountsImporter;
use rbuild_event::Reporter;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(lab.path("mount")).unwrap();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(LocalBackend::new(&self.path("layout"), "latest", None, false))
    }

    fn snapshot(&self, id: &str) -> MountSnapshot {
        MountSnapshot { directory: Digest::of(id), id: id.to_owned(), path: self.path("mount") }
    }

    async fn export(&self, max_size: u64) -> MountsPublished {
        let exporter = MountsExporter::new(self.backend(), max_size);
        exporter.export(&[self.snapshot("apt")]).await.unwrap()
    }

    async fn restore(&self, name: &str) -> Result<Option<crate::mounts::Restored>, CacheError> {
        fs::create_dir(self.path(name)).unwrap();
        let importer = MountsImporter::new(vec![(self.backend(), u64::MAX)], Reporter::silent());
        importer.restore(&Digest::of("apt"), &self.path(name)).await
    }
}

/// Bytes that do not repeat and do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..len.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(len).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_is_what_went_out() {
    let lab = Lab::new();
    let mount = lab.path("mount");
    fs::create_dir(mount.join("dir")).unwrap();
    fs::write(mount.join("dir/file"), "content").unwrap();
    fs::write(mount.join("large"), noise(1, 3 << 20)).unwrap();
    fs::hard_link(mount.join("large"), mount.join("second")).unwrap();
    symlink("/nowhere", mount.join("link")).unwrap();
    fs::set_permissions(mount.join("dir/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(&mount, fs::Permissions::from_mode(0o1777)).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_600_000_000, 123_456_789);
    fs::File::open(mount.join("dir/file")).unwrap().set_modified(time).unwrap();
    assert!(lab.export(u64::MAX).await.written);

    let restored = lab.restore("back").await.unwrap().unwrap();
    assert!(restored.fetched > 3 << 20, "{restored:?}");
    let back = lab.path("back");
    assert_eq!(fs::read(back.join("large")).unwrap(), noise(1, 3 << 20));
    let meta = |name: &str| fs::symlink_metadata(back.join(name)).unwrap();
    assert_eq!(meta("large").ino(), meta("second").ino());
    assert_eq!(meta("dir/file").mode() & 0o7777, 0o4751);
    assert_eq!(meta("").mode() & 0o7777, 0o1777);
    assert_eq!(meta("dir/file").modified().unwrap(), time, "tools compare times to the nanosecond");
    assert_eq!(fs::read_link(back.join("link")).unwrap(), Path::new("/nowhere"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_sent() {
    let lab = Lab::new();
    for file in 0..20 {
        fs::write(lab.path("mount").join(format!("{file:02}")), noise(file, 1 << 20)).unwrap();
    }
    let first = lab.export(u64::MAX).await;
    assert!(first.sent > 8 && first.sent_bytes > 20 << 20, "{first:?}");
    assert_eq!(lab.export(u64::MAX).await, MountsPublished::default(), "nothing changed, nothing is sent");

    fs::write(lab.path("mount/10"), noise(100, 1 << 20)).unwrap();
    fs::remove_file(lab.path("mount/03")).unwrap();
    let second = lab.export(u64::MAX).await;
    assert!(second.written && second.sent_bytes < 12 << 20, "{second:?}");
    lab.restore("back").await.unwrap().unwrap();
    assert_eq!(fs::read(lab.path("back/10")).unwrap(), noise(100, 1 << 20));
    assert!(!lab.path("back/03").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_beyond_the_limit_are_left_out_and_others_stay() {
    let lab = Lab::new();
    fs::write(lab.path("mount/a"), noise(1, 1000)).unwrap();
    lab.export(u64::MAX).await;
    let exporter = MountsExporter::new(lab.backend(), 1 << 20);
    fs::write(lab.path("mount/a"), noise(1, 2 << 20)).unwrap();
    let published = exporter.export(&[lab.snapshot("cargo")]).await.unwrap();
    assert_eq!(published.skipped.len(), 1, "{published:?}");
    assert!(published.skipped[0].starts_with("cargo: it has 2097152 bytes"), "{published:?}");
    assert!(lab.restore("back").await.unwrap().is_some(), "the mount that was there is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_noticed() {
    let lab = Lab::new();
    fs::write(lab.path("mount/a"), noise(1, 1000)).unwrap();
    lab.export(u64::MAX).await;
    assert!(lab.restore("missing").await.unwrap().is_some());
    for blob in fs::read_dir(lab.path("layout/blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    let error = lab.restore("back").await.unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[test]
fn what_was_not_sent_is_not_referred_to() {
    let mut known = Known::default();
    for name in ["sent", "waits", "waits, too"] {
        let digest = Digest::of(name);
        known.places.insert(digest, known.chunks.len());
        known.chunks.push(Chunk { digest, size: 1, blob: digest, blob_size: 0 });
    }
    known.forget(2);
    assert_eq!(known.chunks.len(), 1);
    assert_eq!(known.places, HashMap::from([(Digest::of("sent"), 0)]));
}

#[test]
fn a_manifest_has_no_more_chunks_than_registries_take() {
    let mut known = Known::default();
    let most: Vec<usize> = (0..MAX_CHUNKS).collect();
    assert!(known.use_all(&most[..MAX_CHUNKS - 1]));
    assert!(!known.use_all(&[MAX_CHUNKS, MAX_CHUNKS + 1]), "nothing of it is noted");
    assert!(known.use_all(&[0, 1, MAX_CHUNKS]), "what is used already costs nothing");
    assert!(!known.use_all(&[MAX_CHUNKS + 1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_things_are_not_overwritten_and_damage_is() {
    let lab = Lab::new();
    fs::write(lab.path("mount/a"), noise(1, 1000)).unwrap();
    lab.export(u64::MAX).await;
    let (descriptor, good) = lab.backend().manifest().await.unwrap().unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&good).unwrap();
    manifest["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    let image = manifest.to_string();
    lab.backend().put_manifest(&descriptor.media_type, image.as_bytes()).await.unwrap();
    let exporter = MountsExporter::new(lab.backend(), u64::MAX);
    let refused = exporter.export(&[lab.snapshot("apt")]).await.unwrap_err();
    assert!(matches!(refused, CacheError::Foreign { .. }), "{refused}");
    // A manifest of ours whose config nobody can read is replaced.
    let config = Descriptor::new(CONFIG_MEDIA_TYPE, Digest::of("{}"), 2);
    lab.backend().put_bytes(&config, b"{}").await.unwrap();
    manifest["config"] = serde_json::to_value(&config).unwrap();
    lab.backend().put_manifest(&descriptor.media_type, manifest.to_string().as_bytes()).await.unwrap();
    assert!(lab.export(u64::MAX).await.written);
    assert!(lab.restore("back").await.unwrap().is_some());
}
