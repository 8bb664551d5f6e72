//! The bytes of a layer do not depend on how many threads make them. The number of rayon's threads is fixed per process,
//! so this test runs itself again with other numbers.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests panic and say what is skipped, as tests do"
)]

use rbuild_layer::{Compression, PackOptions, pack_slice};
use rbuild_oci::Digest;
use rbuild_tree::{DataRef, DataSource, FileKind, LayerEntry, LayerEntryKind, Metadata, Timestamp, TreePath};
use std::process::Command;

fn entry(name: String, bytes: Vec<u8>) -> LayerEntry {
    let size = bytes.len() as u64;
    let data = DataRef { size, digest: Some(Digest::of(&bytes)), source: DataSource::Inline(bytes.into()) };
    let meta = Metadata { kind: FileKind::Regular, size, ..Metadata::directory(Timestamp::default()) };
    let kind = LayerEntryKind::Node { meta, data: Some(data), hard_link_to: None };
    LayerEntry { path: TreePath::clamped(name).unwrap(), kind }
}

#[test]
fn child_prints_digests() {
    let text: Vec<u8> = (0_u32..700_000)
        .flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 20).to_string().into_bytes())
        .collect();
    let mut entries: Vec<_> =
        (0..400).map(|i| entry(format!("{i:03}"), text[i * 100..i * 300].to_vec())).collect();
    entries.push(entry("big".into(), text.repeat(4)));
    for compression in [Compression::default(), Compression::Zstd { level: 3 }, Compression::None] {
        let packed = pack_slice(
            &entries,
            &PackOptions { compression, epoch: None, ..PackOptions::default() },
            std::io::sink(),
        )
        .unwrap();
        println!("digest {compression:?} {} {}", packed.diff_id, packed.blob);
    }
}

#[test]
fn thread_counts_do_not_matter() {
    let run = |threads: u32| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_prints_digests", "--nocapture", "--test-threads=1"])
            .env("RAYON_NUM_THREADS", threads.to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter_map(|l| l.find("digest ").map(|at| l[at..].to_owned()));
        lines.collect::<Vec<_>>()
    };
    let one = run(1);
    assert_eq!(one.len(), 3);
    for threads in [2, 7] {
        assert_eq!(run(threads), one, "{threads} threads");
    }
}
