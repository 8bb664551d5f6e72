//! Parsing and lowering Dockerfiles.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rbuild_frontend::{ImageRequest, LowerOptions, ResolveError, ResolvedImage, Resolver};
use rbuild_oci::{Digest, ImageConfig};
use std::fmt::Write as _;
use std::hint::black_box;

struct AnyImage;

impl Resolver for AnyImage {
    fn resolve(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        Ok(ResolvedImage { manifest: Digest::of(&request.reference), config: ImageConfig::default() })
    }
}

/// A file of `steps` instructions in four stages.
fn dockerfile(steps: usize) -> String {
    let mut text = String::from("ARG VERSION=1\n");
    for step in 0..steps {
        if step % (steps / 4).max(1) == 0 {
            writeln!(text, "FROM debian:12 AS stage{step}\nARG VERSION\nENV PATH=/opt/bin:$PATH")
                .expect("a string");
        }
        writeln!(
            text,
            "RUN apt-get update && \\\n    apt-get install -y package{step} && \\\n    rm -rf /var/lib/apt"
        )
        .expect("a string");
        writeln!(text, "COPY --chown=1000:1000 src/$VERSION/file{step} /srv/${{VERSION:-none}}/")
            .expect("a string");
    }
    text
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for steps in [20, 2_000] {
        let text = dockerfile(steps);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("{steps} steps"), |b| {
            b.iter(|| rbuild_frontend::parse(black_box(text.as_bytes())))
        });
        let (parsed, _) = rbuild_frontend::parse(text.as_bytes());
        group.bench_function(format!("lower {steps} steps"), |b| {
            b.iter(|| rbuild_frontend::lower(black_box(&parsed), &LowerOptions::default(), &AnyImage));
        });
    }
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
