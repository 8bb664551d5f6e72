//! Digests: of a stream, and of many small files.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rbuild_oci::{Digest, Sha256Writer};
use rbuild_tree::{DirTree, Tree, TreePath};
use std::hint::black_box;
use std::io::Write as _;

fn hash(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash");
    let data = vec![7; 16 << 20];
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("16 MiB at once", |b| b.iter(|| Digest::of(black_box(&data))));
    group.bench_function("16 MiB through a writer", |b| {
        b.iter(|| {
            let mut writer = Sha256Writer::new(std::io::sink());
            data.chunks(128 << 10).for_each(|chunk| writer.write_all(chunk).expect("a sink takes all"));
            writer.finish().1
        });
    });
    let dir = tempfile::tempdir().expect("a temporary directory");
    for number in 0..2_000 {
        std::fs::write(dir.path().join(format!("f{number}")), vec![number as u8; 4096]).expect("a file");
    }
    let tree = DirTree::open(dir.path()).expect("the directory");
    let files = tree.walk(&TreePath::root()).expect("a walk");
    group.throughput(Throughput::Elements(files.len() as u64));
    group.bench_function("2,000 files of 4 KiB", |b| {
        b.iter(|| tree.digests(black_box(&files)).expect("digests"))
    });
    group.finish();
}

criterion_group!(benches, hash);
criterion_main!(benches);
