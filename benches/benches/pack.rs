//! Packing and unpacking a layer: many small files, and large ones of which half is incompressible, through every codec.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rbuild_layer::{
    Compression, DEFAULT_GZIP_LEVEL, DEFAULT_ZSTD_LEVEL, Limits, PackOptions, pack_slice, unpack_layer,
};
use rbuild_oci::Digest;
use rbuild_tree::{DataRef, DataSource, FileKind, LayerEntry, LayerEntryKind, Metadata, Timestamp, TreePath};
use std::fs::File;
use std::hint::black_box;
use std::io;

fn entry(name: &str, bytes: Vec<u8>) -> LayerEntry {
    let size = bytes.len() as u64;
    let data = DataRef { size, digest: Some(Digest::of(&bytes)), source: DataSource::Inline(bytes.into()) };
    let meta = Metadata { kind: FileKind::Regular, size, ..Metadata::directory(Timestamp::default()) };
    let kind = LayerEntryKind::Node { meta, data: Some(data), hard_link_to: None };
    LayerEntry { path: TreePath::clamped(name).expect("plain names are valid"), kind }
}

/// Bytes that do not compress, the same every time.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn text(len: usize) -> Vec<u8> {
    (0..)
        .flat_map(|i: u64| format!("fn f{i}() -> u64 {{ {} }}\n", i * i % 9973).into_bytes())
        .take(len)
        .collect()
}

fn small_files(count: usize, size: usize) -> Vec<LayerEntry> {
    let source = text(count * 100 + size);
    let name = |i: usize| format!("d{:02}/f{i:04}", i / 1000);
    (0..count).map(|i| entry(&name(i), source[i * 100..i * 100 + size].to_vec())).collect()
}

fn pack(c: &mut Criterion) {
    let large = vec![entry("noise", noise(16 << 20)), entry("text", text(16 << 20))];
    for (name, entries) in [("5000-small", small_files(5000, 4096)), ("32-MiB-half-noise", large)] {
        let mut group = c.benchmark_group(format!("pack/{name}"));
        group.sample_size(10);
        for (codec, compression) in [
            ("none", Compression::None),
            ("gzip", Compression::Gzip { level: DEFAULT_GZIP_LEVEL }),
            ("zstd", Compression::Zstd { level: DEFAULT_ZSTD_LEVEL }),
        ] {
            let options = PackOptions { compression, epoch: None, ..PackOptions::default() };
            let packed = pack_slice(&entries, &options, io::sink()).expect("the entries can be packed");
            group.throughput(Throughput::Bytes(packed.tar_size));
            group.bench_function(codec, |b| b.iter(|| pack_slice(black_box(&entries), &options, io::sink())));
        }
        group.finish();
    }
}

fn tiny(c: &mut Criterion) {
    let entries = [entry("f", b"1\n".to_vec())];
    c.bench_function("pack/one-tiny-file", |b| {
        b.iter(|| pack_slice(black_box(&entries), &PackOptions::default(), io::sink()));
    });
}

fn unpack(c: &mut Criterion) {
    let mut blob = Vec::new();
    let packed = pack_slice(&small_files(2000, 8192), &PackOptions::default(), &mut blob)
        .expect("the entries can be packed");
    let mut group = c.benchmark_group("unpack");
    group.sample_size(10).throughput(Throughput::Bytes(packed.tar_size));
    group.bench_function("2000-small", |b| {
        b.iter_batched(
            || tempfile::tempdir().expect("a temporary directory can be made"),
            |dir| {
                let dest = File::open(dir.path()).expect("it was just made");
                unpack_layer(&blob[..], packed.media_type, dest, &Limits::default()).expect("our own layer");
                // Handed back, so that it is removed after the clock has stopped.
                dir
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, tiny, pack, unpack);
criterion_main!(benches);
