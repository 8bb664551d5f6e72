//! Packs a directory and prints speed, CPU time, ratio and peak memory.
//!
//! `pack_bench DIR [none|gzip[:LEVEL]|zstd[:LEVEL]] [OUT]`; files are hashed before the clock starts, as the context room would.
#![allow(clippy::print_stdout, reason = "an example's output is its purpose")]

use rbuild_layer::{Compression, PackOptions, pack_slice};
use rbuild_oci::Digest;
use rbuild_tree::{DataRef, DataSource, FileKind, LayerEntry, LayerEntryKind, Metadata, Timestamp, TreePath};
use std::error::Error;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let usage = "usage: pack_bench DIR [none|gzip[:LEVEL]|zstd[:LEVEL]] [OUT]";
    let dir = args.next().ok_or(usage)?;
    let codec = args.next().and_then(|a| a.into_string().ok()).unwrap_or_else(|| "gzip".into());
    let out = args.next().unwrap_or_else(|| "/dev/null".into());
    let root = Arc::new(OwnedFd::from(File::open(&dir)?));
    let mut entries = Vec::new();
    collect(Path::new(&dir), &TreePath::root(), &root, &mut entries)?;
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let (name, level) = codec.split_once(':').unwrap_or((&codec, ""));
    let compression = match name {
        "none" => Compression::None,
        "zstd" => Compression::Zstd { level: level.parse().unwrap_or(3) },
        _ => Compression::Gzip { level: level.parse().unwrap_or(rbuild_layer::DEFAULT_GZIP_LEVEL) },
    };
    let options = PackOptions { compression, epoch: None, ..PackOptions::default() };
    let (start, cpu) = (Instant::now(), cpu_seconds()?);
    let packed = pack_slice(&entries, &options, File::create(out)?)?;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let mb = packed.tar_size as f64 / 1e6;
    println!(
        "{codec}: {} entries, {mb:.0} MB in {wall:.2} s = {:.0} MB/s, {cpu:.2} CPU s, ratio {:.4}, size {}, {} {}",
        entries.len(),
        mb / wall,
        packed.tar_size as f64 / packed.size as f64,
        packed.size,
        status("VmHWM:")?,
        packed.blob.short(),
    );
    Ok(())
}

fn collect(at: &Path, below: &TreePath, root: &Arc<OwnedFd>, entries: &mut Vec<LayerEntry>) -> Result<()> {
    for item in std::fs::read_dir(at)? {
        let item = item?;
        let (meta, path) = (item.metadata()?, below.join(item.file_name()));
        let kind = match meta.file_type() {
            t if t.is_dir() => FileKind::Directory,
            t if t.is_symlink() => FileKind::Symlink,
            t if t.is_file() => FileKind::Regular,
            _ => continue,
        };
        let data = match kind {
            FileKind::Regular => {
                let mut writer = rbuild_oci::Sha256Writer::new(std::io::sink());
                std::io::copy(&mut File::open(item.path())?, &mut writer)?;
                let (_, digest, size): (_, Digest, u64) = writer.finish();
                let source = DataSource::Below { root: Arc::clone(root), path: path.clone() };
                Some(DataRef { size, digest: Some(digest), source })
            }
            _ => None,
        };
        let meta = Metadata {
            kind,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            size: data.as_ref().map_or(0, |d| d.size),
            mtime: Timestamp { seconds: meta.mtime(), nanos: meta.mtime_nsec() as u32 },
            link_target: match kind {
                FileKind::Symlink => std::fs::read_link(item.path())?.as_os_str().as_bytes().to_vec(),
                _ => Vec::new(),
            },
            ..Metadata::directory(Timestamp::default())
        };
        entries.push(LayerEntry {
            path: path.clone(),
            kind: LayerEntryKind::Node { meta, data, hard_link_to: None },
        });
        if kind == FileKind::Directory {
            collect(&item.path(), &path, root, entries)?;
        }
    }
    Ok(())
}

fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}

fn status(key: &str) -> Result<String> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    Ok(text.lines().find(|l| l.starts_with(key)).unwrap_or("").to_owned())
}
