//! Walking a build context, plain and with .dockerignore and stat cache.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rbuild_context::{Filter, Ignore, LocalContext, StatCache};
use rbuild_tree::{DirTree, Tree, TreePath};
use std::sync::Arc;

const DIRECTORIES: usize = 100;
const FILES: usize = 100;

fn walk(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for number in 0..DIRECTORIES {
        let folder = dir.path().join(format!("d{number}"));
        std::fs::create_dir(&folder).expect("a directory");
        for file in 0..FILES {
            std::fs::write(folder.join(format!("f{file}")), format!("{number} {file}")).expect("a file");
        }
    }
    let mut group = c.benchmark_group("walk");
    group.throughput(Throughput::Elements((DIRECTORIES * FILES) as u64));
    let tree = DirTree::open(dir.path()).expect("the directory");
    group.bench_function("plain", |b| b.iter(|| tree.walk(&TreePath::root()).expect("a walk")));
    let ignore = Ignore::parse(".dockerignore", b"*.log\n**/target\nd1*/f9\n!d11/f9\n").expect("valid rules");
    let ignore: Arc<dyn Filter> = Arc::new(ignore);
    let context = LocalContext::open(dir.path(), Some(ignore), None).expect("the context");
    group.bench_function("with .dockerignore", |b| {
        b.iter(|| context.walk(&TreePath::root()).expect("a walk"))
    });
    let cache = tempfile::tempdir().expect("a temporary directory");
    // Digests are remembered only of files that are older than the clock's granularity.
    std::thread::sleep(std::time::Duration::from_millis(100));
    let cached = || {
        let cache = StatCache::open(cache.path(), dir.path());
        LocalContext::open(dir.path(), None, Some(cache)).expect("the context")
    };
    let digests = |context: &LocalContext| {
        let entries = context.walk(&TreePath::root()).expect("a walk");
        let files: Vec<_> = entries.into_iter().filter(|(_, meta)| !meta.is_dir()).collect();
        context.digests(&files).expect("digests")
    };
    let first = cached();
    digests(&first);
    first.save_stat_cache().expect("a saved cache");
    group.bench_function("all digests from the stat cache", |b| b.iter(|| digests(&cached())));
    group.finish();
}

criterion_group!(benches, walk);
criterion_main!(benches);
