//! What the store takes, how it is kept within limits, and whether it is whole.

use crate::context::{TestContext, run};
use crate::image::Image;
use serde_json::Value;
use std::process::Command;

/// Steps of several kinds: a stage that is only copied from, links, whiteouts, a cache mount.
const MIXED: &str = "FROM base AS one\n\
    RUN --mount=type=cache,target=/cache echo kept > /cache/x && head -c 700000 /dev/urandom > /big && ln /big /link\n\
    FROM base\n\
    RUN mkdir /d && echo a > /d/a && echo b > /d/b\n\
    RUN rm /d/a && ln -s b /d/c && head -c 500000 /dev/urandom > /more\n\
    COPY tool /bin/tool\n\
    COPY --from=one /big /copied\n\
    RUN chmod 600 /copied\n";

fn mixed() -> TestContext {
    let context = TestContext::of(MIXED);
    context.file("tool", "#!/bin/sh\n");
    context
}

fn du(context: &TestContext) -> u64 {
    let mut du = Command::new("du");
    du.args(["-s", "--block-size=1"]).arg(context.store());
    run(du, b"").ok().stdout.split_whitespace().next().unwrap().parse().unwrap()
}

fn rows(context: &TestContext, args: &[&str]) -> Vec<Value> {
    let text = context.rbuild(&[&["du", "--format", "json"], args].concat()).ok().stdout;
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sum(rows: &[Value]) -> u64 {
    rows.iter().map(|row| row["Size"].as_u64().unwrap()).sum()
}

fn whole(context: &TestContext) {
    let report = context.rbuild(&["fsck", "--deep"]).ok().stdout;
    assert!(report.ends_with("no damage\n"), "{report}");
}

#[test]
fn du_agrees_with_the_file_system() {
    let context = mixed();
    context.build(&["-t", "app"]).ok();
    let rows = rows(&context, &[]);
    let (ours, theirs) = (sum(&rows), du(&context));
    assert!(ours.abs_diff(theirs) * 100 <= theirs, "{ours} instead of {theirs}");
    let table = context.rbuild(&["du"]).ok().stdout;
    for word in ["RECLAIMABLE", "RUN chmod 600", "cache-mount", "docker.io/library/app:latest", "Total:"] {
        assert!(table.contains(word), "`{word}` is missing in:\n{table}");
    }
    assert!(context.rbuild(&["du", "--verbose"]).ok().stdout.contains("Usage count:"));
    let mounts = crate::disk::rows(&context, &["--filter", "type=exec.cachemount"]);
    assert_eq!((mounts.len(), &mounts[0]["Reclaimable"]), (1, &Value::Bool(true)));
    let df = context.rbuild(&["system", "df"]).ok().stdout;
    assert!(df.contains("Images") && df.contains("Build Cache"), "{df}");
    context.rbuild(&["du", "--filter", "nonsense=1"]).fails(2, &["nonsense"]);
}

#[test]
fn prune_removes_what_filters_name() {
    let context = mixed();
    context.build(&["-t", "app"]).ok();
    context.rbuild(&["prune"]).fails(2, &["-f"]);
    context.rbuild(&["prune", "-f", "--filter", "until=soon"]).fails(2, &["soon"]);
    context.rbuild(&["prune", "-f", "--max-used-space", "much"]).fails(2, &["much"]);
    let removed = context.rbuild(&["prune", "-f", "--filter", "until=24h"]).ok().stdout;
    assert_eq!(removed, "Total reclaimed space: 0B\n");
    let removed = context.rbuild(&["prune", "-f", "--filter", "type=exec.cachemount"]).ok().stdout;
    assert_eq!(removed.lines().count(), 2, "{removed}");
    assert!(removed.starts_with("cache-mount "), "{removed}");
    assert_eq!(context.build(&["-t", "app"]).ok().steps().0, 0, "the steps are still cached");
    let preview = context.rbuild(&["prune", "-f", "--dry-run", "--verbose"]).ok().stdout;
    assert!(preview.contains("RUN chmod 600"), "{preview}");
    context.rbuild(&["prune", "-f", "--reserved-space", "1GB"]).ok();
    assert_eq!(context.build(&["-t", "app"]).ok().steps().0, 0);
    context.rbuild(&["prune", "-f"]).ok();
    whole(&context);
    assert!(context.build(&["-t", "app"]).ok().steps().0 > 0);
    whole(&context);
}

#[test]
fn builds_keep_the_cache_within_its_limits() {
    let mut context = TestContext::new();
    let limits = [("MAX_USED", "6MB"), ("RESERVED", "0"), ("MIN_FREE", "0")];
    for (name, value) in limits {
        context.env(&format!("RBUILD_{name}_SPACE"), value);
    }
    let step = |n: u32| format!("FROM base\nRUN head -c 1500000 /dev/urandom > /big && echo {n}\n");
    let mut collected = 0;
    for n in 0..8 {
        // Sleeping makes the first step dearer than the others, which are alike but for their age.
        let slow = if n == 0 { "RUN sleep 2; head -c 1000000 /dev/urandom > /slow\n" } else { "" };
        let built = context.dockerfile(&(step(n) + slow)).build(&["-t", "app"]).ok();
        collected += usize::from(built.stderr.contains("of unused cache"));
    }
    assert!((1..8).contains(&collected), "not every build removes something: {collected}");
    let image = Image::of(&context, "app:latest");
    assert_eq!(image.layers.len(), 2);
    let cache: Vec<Value> = rows(&context, &[])
        .into_iter()
        .filter(|row| row["Images"].as_array().unwrap().is_empty() && row["Type"] != "internal")
        .collect();
    assert!(sum(&cache) <= 6 << 20, "{}", sum(&cache));
    assert_eq!(context.build(&["-t", "app"]).ok().steps().0, 0, "the newest is still there");
    whole(&context);
    context.env("RBUILD_MAX_USED_SPACE", "some").build(&["-t", "app"]).fails(2, &["RBUILD_MAX_USED_SPACE"]);
}

#[test]
fn fsck_finds_damage_and_repairs_it() {
    let context = mixed();
    context.build(&["-t", "app"]).ok();
    whole(&context);
    let image = Image::of(&context, "app:latest");
    let digest = image.manifest["layers"][1]["digest"].as_str().unwrap().to_owned();
    let blob = context.store().join("blobs").join(digest.replace(':', "/"));
    let mut bytes = std::fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let found = context.rbuild(&["fsck"]);
    assert_eq!(found.code, 5, "{}", found.stdout);
    assert!(found.stdout.contains(&format!("blob {digest}")), "{}", found.stdout);
    assert!(found.stdout.contains("image docker.io/library/app:latest"), "{}", found.stdout);
    let report: Value = serde_json::from_str(&context.rbuild(&["fsck", "--format", "json"]).stdout).unwrap();
    assert!(report["damaged"].as_u64().unwrap() >= 2, "{report}");
    let repaired = context.rbuild(&["fsck", "--repair"]).ok().stdout;
    assert!(repaired.contains("the tag was removed"), "{repaired}");
    whole(&context);
    assert_eq!(context.rbuild(&["images", "-q"]).ok().stdout, "");
    // The layer is still unpacked: it is packed again, and nothing runs.
    assert_eq!(context.build(&["-t", "app"]).ok().steps().0, 0);
    assert_eq!(Image::of(&context, "app:latest").layers.len(), image.layers.len());
}

/// The machine goes down: the mark names another boot, and what was not flushed is cut short.
#[test]
fn a_power_loss_costs_what_it_took_and_no_more() {
    let mut context = mixed();
    context.env("SOURCE_DATE_EPOCH", "1700000000");
    context.dockerfile(
        "FROM base\nRUN mkdir /d && echo one > /d/one\nRUN echo two > /d/two && sleep 0.1\nCOPY tool /bin/tool\n",
    );
    let built = context.build(&["-t", "app"]).ok();
    let image = Image::of(&context, "app:latest");
    let store = context.store();
    let mark = std::fs::read_to_string(store.join("synced")).unwrap();
    let boot = mark.split(' ').nth(1).unwrap();
    let cut = |path: &std::path::Path| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(1).unwrap();
    };
    let lose = |index: usize| {
        let digest = image.manifest["layers"][index]["digest"].as_str().unwrap();
        cut(&store.join("blobs").join(digest.replace(':', "/")));
        std::fs::write(store.join("synced"), mark.replace(boot, "0000-another-boot")).unwrap();
    };
    lose(2);
    let images = context.rbuild(&["images", "-q"]).ok();
    assert!(images.stderr.contains("WARN: the machine went down while writing"), "{}", images.stderr);
    assert!(images.stderr.contains("docker.io/library/app:latest"), "{}", images.stderr);
    assert_eq!(images.stdout, "");
    let again = context.build(&["-t", "app"]).ok();
    assert_eq!(again.steps(), (0, built.steps().0), "what is unpacked still is packed again");
    assert_eq!(Image::of(&context, "app:latest").digest, image.digest);
    // Both forms of a layer: its step runs again.
    lose(1);
    for entry in std::fs::read_dir(store.join("snapshots")).unwrap() {
        let path = entry.unwrap().path().join("fs/d/one");
        if path.exists() {
            cut(&path);
        }
    }
    let again = context.build(&["-t", "app"]).ok();
    assert!(again.steps().0 > 0, "{}", again.stderr);
    assert_eq!(Image::of(&context, "app:latest").digest, image.digest);
    whole(&context);
}
