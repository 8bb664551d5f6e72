//! Cache mounts.

use crate::bed::{Bed, Built, bed};
use std::fs;
use std::path::PathBuf;

/// Steps on a stage of their own each, so that they run side by side, and a last one that needs them all.
fn side_by_side(steps: &[&str]) -> String {
    let mut text = String::new();
    for (at, step) in steps.iter().enumerate() {
        text.push_str(&format!("FROM base AS s{at}\n{step}\nRUN touch /done{at}\n"));
    }
    text.push_str("FROM base\n");
    for at in 0..steps.len() {
        text.push_str(&format!("COPY --from=s{at} /done{at} /\n"));
    }
    text
}

fn directories(bed: &Bed) -> Vec<PathBuf> {
    let entries = fs::read_dir(bed.store().join("cache-mounts")).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

/// A-085
#[test]
fn a_085_content_survives_and_is_no_part_of_the_image() {
    let Some(bed) = bed("a_085_content_survives_and_is_no_part_of_the_image") else { return };
    let files = bed.files(
        "RUN --mount=type=cache,target=/c echo one >/c/file; test $(stat -c %a:%u:%g /c) = 755:0:0",
        &[],
    );
    assert!(!files.join("c").exists());
    bed.builds("RUN --mount=type=cache,target=/c test $(cat /c/file) = one # again");
    bed.builds("RUN --mount=type=cache,target=/other,id=/c test $(cat /other/file) = one");
    bed.builds("RUN --mount=type=cache,target=/other test ! -e /other/file");
    bed.build("RUN --mount=type=cache,target=/c,ro touch /c/new", &[]).failed_with("Read-only file system");
    bed.builds(
        "RUN --mount=type=cache,target=/d,mode=0700,uid=7,gid=8 test $(stat -c %a:%u:%g /d) = 700:7:8",
    );
}

/// A-085
#[test]
fn a_085_no_cache_begins_empty_once_in_a_build() {
    let Some(bed) = bed("a_085_no_cache_begins_empty_once_in_a_build") else { return };
    bed.builds("RUN --mount=type=cache,target=/c touch /c/old");
    let dockerfile = "RUN --mount=type=cache,target=/c test ! -e /c/old && touch /c/new\nRUN --mount=type=cache,target=/c test -e /c/new";
    bed.build(dockerfile, &[]).failed_with("exit code: 1");
    bed.build(dockerfile, &["--no-cache"]).succeeded();
    bed.builds("RUN --mount=type=cache,target=/c test -e /c/new && touch /c/old");
    let stages = format!("FROM base AS fill\n{dockerfile} # of a stage").replace("/c/old &&", "/c/old  &&");
    bed.build(&stages, &["--no-cache-filter", "other"]).failed_with("exit code: 1");
    bed.build(&stages, &["--no-cache-filter", "fill"]).succeeded();
}

/// A-085
#[test]
fn a_085_a_new_one_begins_with_the_files_of_its_source() {
    let Some(bed) = bed("a_085_a_new_one_begins_with_the_files_of_its_source") else { return };
    let stage = |text: &str| {
        format!(
            "FROM base AS seed\nRUN mkdir /data && echo {text} >/data/file && chmod 700 /data\nFROM base\n"
        )
    };
    let step = "RUN --mount=type=cache,target=/c,from=seed,source=/data";
    bed.builds(&format!(
        "{}{step} test $(cat /c/file) = one && test $(stat -c %a /c) = 700 && echo more >/c/more",
        stage("one")
    ));
    bed.builds(&format!("{}{step} test -e /c/more # again", stage("one")));
    // C-036: another source is another directory.
    bed.builds(&format!("{}{step} test ! -e /c/more && test $(cat /c/file) = two", stage("two")));
    bed.write("seed/file", "from a context");
    let dir = format!("seeds={}", bed.context().join("seed").display());
    let args = ["--build-context", dir.as_str()];
    bed.build("RUN --mount=type=cache,target=/c,from=seeds grep -q context /c/file", &args).succeeded();
}

/// A-085: BuildKit makes the directory, so that it is another one than without, and not the files of `from`.
#[test]
fn a_085_mode_and_owner_are_of_a_new_directory() {
    let Some(bed) = bed("a_085_mode_and_owner_are_of_a_new_directory") else { return };
    bed.builds("RUN --mount=type=cache,id=x,target=/c touch /c/file");
    bed.builds("RUN --mount=type=cache,id=x,target=/c,uid=0 test ! -e /c/file && touch /c/other");
    bed.builds("RUN --mount=type=cache,id=x,target=/c,mode=0755,gid=0 test -e /c/other");
    bed.builds("RUN --mount=type=cache,target=/f,from=base,uid=5 test $(stat -c %u:%a /f) = 5:755 && test -z \"$(ls /f)\"");
    bed.builds("RUN --mount=type=cache,target=/f,from=base test -e /f/bin/sh");
    // The part of a source keeps its own; only permission bits count.
    bed.builds("RUN --mount=type=cache,target=/p,from=base,source=/bin,uid=5 test $(stat -c %u /p) = 0 && test -e /p/sh");
    bed.builds("RUN --mount=type=cache,target=/m,mode=1777 test $(stat -c %a /m) = 777");
}

/// C-035
#[test]
fn c_035_the_same_id_at_two_targets_shows_the_same_data() {
    let Some(bed) = bed("c_035_the_same_id_at_two_targets_shows_the_same_data") else { return };
    for sharing in ["shared", "private", "locked"] {
        let mount = |target| format!("--mount=type=cache,id=x-{sharing},sharing={sharing},target={target}");
        bed.builds(&format!("RUN {} {} echo x >/a/file && test -e /b/file", mount("/a"), mount("/b")));
    }
}

/// A step that waits until the other one is in the cache mount too, up to ten seconds.
fn meeting(sharing: &str, me: &str, other: &str) -> String {
    format!(
        "RUN --mount=type=cache,target=/c,sharing={sharing} touch /c/{me}; \
         for i in 0 1 2 3 4 5 6 7 8 9; do test -e /c/{other} && exit 0; sleep 1; done; exit 9"
    )
}

/// C-035
#[test]
fn c_035_shared_is_used_side_by_side_by_threads_and_processes() {
    let Some(bed) = bed("c_035_shared_is_used_side_by_side_by_threads_and_processes") else { return };
    bed.builds(&side_by_side(&[&meeting("shared", "a", "b"), &meeting("shared", "b", "a")]));
    let one = bed.start(&meeting("shared", "third", "fourth"), &[]);
    let two = bed.start(&format!("{}#", meeting("shared", "fourth", "third")), &[]);
    for child in [one, two] {
        Built::from(child.wait_with_output().unwrap()).succeeded();
    }
    assert_eq!(directories(&bed).len(), 1);
}

/// A step that fails when another one is in the same directory.
const ALONE: &str = "test ! -e /c/busy && touch /c/busy && sleep 1 && test ! -e /c/intruder && rm /c/busy";

/// C-035
#[test]
fn c_035_locked_waits_for_threads_and_processes() {
    let Some(bed) = bed("c_035_locked_waits_for_threads_and_processes") else { return };
    let step = |note: &str| format!("RUN --mount=type=cache,target=/c,sharing=locked {ALONE} # {note}");
    bed.builds(&side_by_side(&[&step("1"), &step("2")]));
    let one = bed.start(&step("333"), &[]);
    let two = bed.start(&step("4444"), &[]);
    for child in [one, two] {
        Built::from(child.wait_with_output().unwrap()).succeeded();
    }
    assert_eq!(directories(&bed).len(), 1);
}

/// C-035
#[test]
fn c_035_locks_taken_in_any_order_do_not_block_each_other() {
    let Some(bed) = bed("c_035_locks_taken_in_any_order_do_not_block_each_other") else { return };
    let mount = |id: &str| format!("--mount=type=cache,id={id},target=/{id},sharing=locked");
    let steps: Vec<String> = (0..8)
        .map(|at| {
            let (first, second) = if at % 2 == 0 { ("x", "y") } else { ("y", "x") };
            format!("RUN {} {} true # {at}", mount(first), mount(second))
        })
        .collect();
    bed.builds(&side_by_side(&steps.iter().map(String::as_str).collect::<Vec<_>>()));
}

/// C-035
#[test]
fn c_035_private_gets_its_own_when_the_first_is_in_use() {
    let Some(bed) = bed("c_035_private_gets_its_own_when_the_first_is_in_use") else { return };
    let step = |note: &str| format!("RUN --mount=type=cache,target=/c,sharing=private {ALONE} # {note}");
    bed.builds(&side_by_side(&[&step("1"), &step("2")]));
    assert!((1..=2).contains(&directories(&bed).len()));
    bed.builds("RUN --mount=type=cache,target=/c,sharing=private touch /c/mine");
    bed.builds("RUN --mount=type=cache,target=/c,sharing=private test -e /c/mine # free again");
}

/// C-036
#[test]
fn c_036_ids_are_hashed_and_have_a_namespace() {
    let Some(bed) = bed("c_036_ids_are_hashed_and_have_a_namespace") else { return };
    fs::create_dir_all(bed.path("victim")).unwrap();
    // CVE-2024-9675
    for (at, id) in ["../../victim", "/../../../victim", "a/b", "..", "."].iter().enumerate() {
        bed.builds(&format!("RUN --mount=type=cache,id={id},target=/c touch /c/x # {at}"));
    }
    assert_eq!(fs::read_dir(bed.path("victim")).unwrap().count(), 0);
    assert_eq!(directories(&bed).len(), 5);
    bed.builds("RUN --mount=type=cache,target=/n touch /n/x");
    let namespace = ["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=team"];
    bed.build("RUN --mount=type=cache,target=/n test ! -e /n/x", &namespace).succeeded();
}

/// A-090
#[test]
fn a_090_the_content_of_a_cache_mount_is_no_part_of_the_key() {
    let Some(bed) = bed("a_090_the_content_of_a_cache_mount_is_no_part_of_the_key") else { return };
    let dockerfile = "RUN --mount=type=cache,target=/c echo x >>/c/log";
    bed.builds(dockerfile);
    bed.builds("RUN --mount=type=cache,target=/c echo y >>/c/log");
    assert_eq!(bed.builds(dockerfile).executed(), 0);
}

#[test]
fn cve_2024_23651_a_swapped_part_of_a_cache_mount_stays_inside() {
    let Some(bed) = bed("cve_2024_23651_a_swapped_part_of_a_cache_mount_stays_inside") else { return };
    let canary = bed.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "canary").unwrap();
    let seed = "FROM base AS seed\nRUN mkdir /part /hidden\nFROM base AS go\n";
    let all = "--mount=type=cache,id=x,from=seed,target=/c";
    let part = "--mount=type=cache,id=x,from=seed,source=/part,target=/p";
    bed.builds(&format!("{seed}RUN {all} rm -r /c/part; ln -s {} /c/part", canary.display()));
    // The link's target is not there in the cache mount; it never means the machine's.
    let built = bed.build(&format!("{seed}RUN {part} ls /p; cat /p/file"), &[]);
    assert!(!built.ok && !built.said.contains("canary\n"), "{}", built.said);
    // The same while it is being swapped.
    let swap = format!(
        "RUN {all} for i in 0 1 2 3 4 5 6 7 8 9; do rm -r /c/part; mkdir /c/part; rm -r /c/part; ln -s {} /c/part; done # racer",
        canary.display()
    );
    let read: Vec<String> = (0..6).map(|at| format!("RUN {part} ! cat /p/file # {at}")).collect();
    for step in read {
        let both = format!("FROM base AS seed\nRUN mkdir /part /hidden\n{}", side_by_side(&[&swap, &step]));
        let built = bed.build(&both, &[]);
        assert!(
            built.ok || built.said.contains("open mount source") || built.said.contains("cannot mount"),
            "{}",
            built.said
        );
    }
    assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "canary");
}

#[test]
fn a_085_a_missing_part_is_named() {
    let Some(bed) = bed("a_085_a_missing_part_is_named") else { return };
    for (options, words) in [
        ("from=base,source=/none", r#"the source of the cache mount "/m" at /m: "/none": not found"#),
        ("id=x,source=none", r#"the source of the cache mount "x" at /m: "/none": not found"#),
    ] {
        let step = format!("RUN --mount=type=cache,target=/m,{options} true");
        let mut command = bed.command(&step, &[]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && said.contains(">>> RUN") && !said.contains("cache-mounts"), "{said}");
    }
    bed.build("RUN --mount=from=base,target=/m,source=/none true", &[])
        .failed_with("the source of the bind mount at /m: \"/none\": not found");
    bed.builds("RUN --mount=type=cache,from=base,source=/bin,target=/m test -e /m/sh");
}
