//! Bind and tmpfs mounts, order, heredoc scripts.

use crate::bed::bed;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

///
#[test]
fn a_084_the_context_is_mounted_without_what_is_excluded() {
    let Some(bed) = bed("a_084_the_context_is_mounted_without_what_is_excluded") else { return };
    bed.write("src/keep", "kept");
    bed.write("src/drop", "dropped");
    bed.write(".dockerignore", "src/drop\n");
    bed.builds("RUN --mount=target=/m,source=src test $(cat /m/keep) = kept && test ! -e /m/drop");
    bed.builds("RUN --mount=target=/m test -e /m/src/keep && test ! -e /m/src/drop");
    bed.builds("RUN --mount=target=/m/file,source=src/keep test $(cat /m/file) = kept && test $(stat -c %u:%g /m/file) = 0:0");
    bed.build("RUN --mount=target=/m,source=src touch /m/new", &[]).failed_with("Read-only file system");
    bed.build("RUN --mount=target=/m,source=src/drop true", &[]).failed_with("excluded by .dockerignore:1");
    bed.build("RUN --mount=target=/m,source=nope true", &[])
        .failed_with("the source of the bind mount at /m: \"/nope\": not found");
}

///
#[test]
fn a_084_writes_are_discarded() {
    let Some(bed) = bed("a_084_writes_are_discarded") else { return };
    bed.write("src/file", "old");
    let files = bed.files(
        "RUN --mount=target=/m,source=src,rw echo new >/m/file; echo x >/m/more; cat /m/file /m/more >/seen\n\
         RUN --mount=target=/f,source=src/file,rw echo other >/f; cat /f >>/seen\n\
         RUN --mount=target=/b,source=/bin,from=base,rw rm /b/nc && touch /b/x && test -e /bin/nc\n\
         RUN --mount=target=/m,source=src cat /m/* >>/seen",
        &[],
    );
    assert_eq!(fs::read_to_string(files.join("seen")).unwrap(), "new\nx\nother\nold");
    for stub in ["m", "f", "b"] {
        assert!(!files.join(stub).exists(), "the stub of {stub} is left");
    }
    assert_eq!(fs::read_to_string(bed.context().join("src/file")).unwrap(), "old");
}

///
#[test]
fn a_084_a_stage_is_mounted_and_its_links_stay_inside() {
    let Some(bed) = bed("a_084_a_stage_is_mounted_and_its_links_stay_inside") else { return };
    bed.write("plain", "from the context");
    symlink("/etc", bed.context().join("out")).unwrap();
    symlink("../../../../plain", bed.context().join("up")).unwrap();
    let stage = "FROM base AS other\n\
                 RUN echo inside >/etc/hostname && ln -s / /root-link && ln -s /etc/hostname /abs && ln -s ../../../etc /up\n\
                 FROM base\n";
    bed.builds(&format!("{stage}RUN --mount=from=other,target=/m test $(cat /m/etc/hostname) = inside"));
    // CVE-2024-1753: the link leads to the stage's root, not to the machine's.
    bed.builds(&format!("{stage}RUN --mount=from=other,source=/root-link,target=/m test ! -e /m/usr && test -e /m/etc/hostname"));
    bed.builds(&format!("{stage}RUN --mount=from=other,source=/abs,target=/m test $(cat /m) = inside"));
    bed.builds(&format!(
        "{stage}RUN --mount=from=other,source=/up,target=/m test $(cat /m/hostname) = inside"
    ));
    bed.build(&format!("{stage}RUN --mount=from=other,source=/none,target=/m true"), &[])
        .failed_with("\"/none\": not found");
    bed.build("RUN --mount=source=out,target=/m true", &[]).failed_with("not found");
    bed.builds("RUN --mount=source=up,target=/m grep -q context /m");
    bed.builds("RUN --mount=from=scratch,target=/m test -z \"$(ls /m)\"");
}

///
#[test]
fn a_090_a_bind_mount_is_keyed_by_content() {
    let Some(bed) = bed("a_090_a_bind_mount_is_keyed_by_content") else { return };
    bed.write("src/file", "one");
    bed.write("other", "x");
    let dockerfile = "RUN --mount=target=/m,source=src cat /m/file >/seen";
    let executed = || bed.builds(dockerfile).executed();
    executed();
    assert_eq!(executed(), 0);
    let file = fs::File::options().write(true).open(bed.context().join("src/file")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(1000)).unwrap();
    bed.write("other", "y");
    assert_eq!(executed(), 0, "a new time, or another file, changes nothing");
    bed.write("src/file", "two");
    assert_eq!(executed(), 1);
    assert_eq!(fs::read_to_string(bed.files(dockerfile, &[]).join("seen")).unwrap(), "two");
    bed.write("src/file", "one");
    assert_eq!(executed(), 0, "as at first");
    bed.write("src/more", "");
    assert_eq!(executed(), 1);
}

///
#[test]
fn a_090_times_are_those_of_the_context() {
    let Some(bed) = bed("a_090_times_are_those_of_the_context") else { return };
    // What a build tool compares with the times in a cache mount must not come from an earlier copy of equal content.
    for seconds in [1_000_000_000, 1_100_000_000] {
        bed.write("src/file", "same");
        let file = fs::File::options().write(true).open(bed.context().join("src/file")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        bed.builds(&format!("RUN --mount=target=/m,source=src test $(stat -c %Y /m/file) = {seconds}"));
    }
}

///
#[test]
fn a_090_a_rebuilt_stage_with_equal_files_changes_nothing() {
    let Some(bed) = bed("a_090_a_rebuilt_stage_with_equal_files_changes_nothing") else { return };
    let build = |noise: &str, part: &str| {
        let dockerfile = format!(
            "FROM base AS other\nRUN echo {noise} >/noise; mkdir /part; echo {part} >/part/file\nFROM base\n\
             RUN --mount=from=other,source=/part,target=/m cat /m/file >/seen"
        );
        bed.builds(&dockerfile).executed()
    };
    build("1", "a");
    assert_eq!(build("2", "a"), 1, "only the stage");
    assert_eq!(build("3", "b"), 2);
}

///
#[test]
fn a_086_tmpfs() {
    let Some(bed) = bed("a_086_tmpfs") else { return };
    let files = bed.files(
        "RUN --mount=type=tmpfs,target=/t,size=1m echo x >/t/file && ! dd if=/dev/zero of=/t/big bs=1M count=2 2>/dev/null\n\
         RUN --mount=type=tmpfs,target=/t test -z \"$(ls /t)\" && test $(stat -c %a /t) = 1777",
        &[],
    );
    assert!(!files.join("t").exists());
}

/// as runc mounts it, with the permissions of what it covers.
#[test]
fn a_086_tmpfs_over_a_directory_has_its_mode() {
    let Some(bed) = bed("a_086_tmpfs_over_a_directory_has_its_mode") else { return };
    bed.builds(
        "RUN mkdir -m 750 /t && mkdir -m 3775 /u\n\
         RUN --mount=type=tmpfs,target=/t --mount=type=tmpfs,target=/u,ro test \"$(stat -c %a:%u /t /u)\" = \"$(echo 750:0; echo 3775:0)\"\n\
         RUN --mount=type=tmpfs,target=/t/new test $(stat -c %a /t/new) = 1777",
    );
}

///
#[test]
fn a_091_targets_in_other_mounts() {
    let Some(bed) = bed("a_091_targets_in_other_mounts") else { return };
    bed.write("src/file", "x");
    // A read-only tmpfs is sealed last.
    bed.builds("RUN --mount=type=tmpfs,target=/t,ro --mount=target=/t/s,source=src test -e /t/s/file && ! touch /t/x");
    bed.builds("RUN --mount=target=/t,source=src,rw --mount=target=/t/s,source=src test -e /t/s/file");
    bed.build("RUN --mount=target=/t,source=src --mount=target=/t/s,source=src true", &[]).failed_with(
        "cannot create mount target /t/s: Read-only file system (it lies in a mount that is read-only",
    );
    bed.build("WORKDIR /w/deep\nRUN --mount=target=/w,source=src true", &[]).failed_with(
        "cannot create the working directory /w/deep: Read-only file system (it lies in a mount that is",
    );
    // What had to be made in a cache mount stays there, as with BuildKit.
    bed.builds("RUN --mount=type=cache,target=/c --mount=target=/c/s,source=src --mount=target=/c/f,source=src/file true");
    let files =
        bed.files("RUN --mount=type=cache,target=/c test -d /c/s && test ! -s /c/f && rm -r /c/s /c/f", &[]);
    assert!(!files.join("c").exists());
}

///
#[test]
fn a_083_targets_of_another_kind_and_links() {
    let Some(bed) = bed("a_083_targets_of_another_kind_and_links") else { return };
    bed.write("src/file", "x");
    let link = "RUN mkdir /real /e && touch /plain && ln -s /real /link && ln -s ../nowhere/deep /dangling\n";
    bed.build(&format!("{link}RUN --mount=target=/real,source=src/file true"), &[])
        .failed_with("cannot mount a file at /real, which is a directory in the image");
    bed.build(&format!("{link}RUN --mount=target=/plain,source=src true"), &[])
        .failed_with("cannot mount a directory at /plain, which is a file in the image");
    let files = bed.files(
        &format!(
            "{link}RUN --mount=target=/link/in,source=src --mount=target=/dangling,source=src \
             test -e /real/in/file && test -e /nowhere/deep/file\n\
             WORKDIR /w\nRUN --mount=target=in,source=src --mount=type=secret,id=s,target=sub/s test -e /w/in/file && test -e /w/sub/s"
        ),
        &["--secret", &format!("id=s,src={}", bed.context().join("src/file").display())],
    );
    for gone in ["real/in", "nowhere", "w/in", "w/sub"] {
        assert!(!files.join(gone).exists(), "{gone}");
    }
    assert!(fs::symlink_metadata(files.join("link")).unwrap().is_symlink());
}

///
#[test]
fn a_091_mounts_nest_and_the_last_of_equal_targets_counts() {
    let Some(bed) = bed("a_091_mounts_nest_and_the_last_of_equal_targets_counts") else { return };
    bed.write("one/file", "one");
    bed.write("two/file", "two");
    bed.builds(
        "RUN --mount=type=tmpfs,target=/m --mount=target=/m/one,source=one --mount=target=/m/one/file,source=two/file \
         test $(cat /m/one/file) = two && test \"$(ls /m)\" = one",
    );
    bed.builds("RUN --mount=target=/m,source=one --mount=target=/m,source=two test $(cat /m/file) = two");
    bed.builds(
        "RUN --mount=target=/m/in,source=one --mount=type=tmpfs,target=/m test $(cat /m/in/file) = one",
    );
}

///
#[test]
fn a_123_heredoc_scripts_are_executed() {
    let Some(bed) = bed("a_123_heredoc_scripts_are_executed") else { return };
    let files = bed.files(
        "RUN <<EOF\n#!/bin/sh\necho \"$0\" >/seen\nstat -c %a $0 >>/seen\necho x 2>/dev/null >>$0 || echo refused >>/seen\nEOF",
        &[],
    );
    assert_eq!(fs::read_to_string(files.join("seen")).unwrap(), "/dev/pipes/EOF\n755\nrefused\n");
}

#[test]
fn cve_2024_23652_a_swapped_stub_is_left_alone() {
    let Some(bed) = bed("cve_2024_23652_a_swapped_stub_is_left_alone") else { return };
    let canary = bed.path("canary");
    fs::create_dir(&canary).unwrap();
    // The stub is busy while it is mounted, but its parent can be swapped for a link to the machine's directory.
    let script = format!(
        "RUN --mount=type=tmpfs,target=/a/canary mv /a /b; ln -s {} /a; true",
        bed.path("").display().to_string().trim_end_matches('/')
    );
    bed.builds(&script);
    assert!(canary.is_dir());
}

#[test]
fn nothing_is_left_in_the_store() {
    let Some(bed) = bed("nothing_is_left_in_the_store") else { return };
    bed.write("src/file", "x");
    bed.builds("RUN --mount=target=/m,source=src,rw --mount=type=cache,target=/c touch /m/x /c/x");
    bed.build("RUN --mount=target=/m,source=src,rw --mount=type=cache,target=/c false", &[])
        .failed_with("exit code: 1");
    assert_eq!(fs::read_dir(bed.store().join("ingest")).unwrap().count(), 0);
}
