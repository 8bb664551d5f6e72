//! What decides whether a step runs again: C-009 to C-019.

use crate::context::TestContext;
use crate::image::Image;
use rbuild_testkit::{Options, TestRegistry};
use std::os::unix::fs::PermissionsExt;

/// Names of the executed steps, without their numbers.
fn executed(context: &TestContext, args: &[&str]) -> Vec<String> {
    let run = context.build(&[&["-t", "app"], args].concat()).ok();
    let name = |step: String| step.split_once("] ").map_or(step.clone(), |(_, name)| name.to_owned());
    run.executed().into_iter().map(name).filter(|name| !name.starts_with("FROM ")).collect()
}

/// C-009: the key of an image is what it is, not how it is called.
#[test]
fn c_009_a_moved_tag_misses_and_an_equal_digest_hits() {
    let registry = TestRegistry::start(Options::default());
    let name = |tag: &str| format!("{}/team/base:{tag}", registry.host());
    let push = |text: &str, tags: &[&str]| {
        let context = TestContext::of(&format!("FROM base\nRUN echo {text} > /which\n"));
        for tag in tags {
            context.build(&["-t", &name(tag), "--push"]).ok();
        }
    };
    push("one", &["1", "same"]);
    let context = TestContext::of(&format!("FROM {}\nRUN cat /which\n", name("1")));
    assert_eq!(executed(&context, &[]), ["RUN cat /which"]);
    context.dockerfile(&format!("FROM {}\nRUN cat /which\n", name("same")));
    assert_eq!(executed(&context, &[]), [""; 0], "another name of the same image");
    push("two", &["1"]);
    context.dockerfile(&format!("FROM {}\nRUN cat /which\n", name("1")));
    assert_eq!(executed(&context, &["--pull"]), ["RUN cat /which"], "the name means another image");
    assert_eq!(Image::of(&context, "app:latest").layers.len(), 3);
}

/// C-010, C-011: content, types, modes and names count; times, owners and inodes do not.
#[test]
fn c_011_what_a_copy_of_a_context_sees() {
    let context = TestContext::of("FROM scratch\nCOPY dir /dir/\n");
    context.file("dir/file", "data").file("dir/sub/other", "x").symlink("dir/link", "file");
    assert_eq!(executed(&context, &[]).len(), 1);
    let file = context.in_context("dir/file");
    let set_mode = |mode| std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
    type Edit<'a> = (&'a str, bool, &'a dyn Fn());
    let edits: [Edit<'_>; 12] = [
        ("the same bytes in a new file", false, &|| {
            std::fs::remove_file(&file).unwrap();
            context.file("dir/file", "data");
        }),
        ("a time", false, &|| {
            let open = std::fs::File::options().write(true).open(&file).unwrap();
            open.set_modified(std::time::UNIX_EPOCH).unwrap();
        }),
        ("an owner", false, &|| std::os::unix::fs::chown(&file, Some(5), Some(6)).unwrap()),
        ("the order of making", false, &|| {
            std::fs::rename(context.in_context("dir/sub"), context.in_context("away")).unwrap();
            std::fs::rename(context.in_context("away"), context.in_context("dir/sub")).unwrap();
        }),
        ("bytes", true, &|| {
            context.file("dir/file", "atad");
        }),
        ("the mode of a file", true, &|| set_mode(0o600)),
        ("the mode of a directory", true, &|| {
            context.mode("dir/sub", 0o700);
        }),
        ("the target of a link", true, &|| {
            std::fs::remove_file(context.in_context("dir/link")).unwrap();
            context.symlink("dir/link", "sub");
        }),
        ("a file more", true, &|| {
            context.file("dir/more", "");
        }),
        ("a file less", true, &|| std::fs::remove_file(context.in_context("dir/more")).unwrap()),
        ("a name", true, &|| {
            std::fs::rename(context.in_context("dir/sub/other"), context.in_context("dir/sub/named"))
                .unwrap();
        }),
        ("a directory in place of a file", true, &|| {
            std::fs::remove_file(&file).unwrap();
            std::fs::create_dir(&file).unwrap();
        }),
    ];
    for (what, matters, edit) in edits {
        // What came out before the edit is known already when the first build after "a file less" hits it.
        edit();
        let known = what == "a file less";
        assert_eq!(executed(&context, &[]).len(), usize::from(matters && !known), "{what}");
        assert_eq!(executed(&context, &[]).len(), 0, "{what}, again");
    }
}

/// C-011, A-107: the key has the mode and owner that will be written.
#[test]
fn c_011_chmod_and_chown_decide_before_the_source_does() {
    let modes = [0o644, 0o600];
    for (flags, hides) in [
        ("--chmod=640", true),
        ("--chmod=+x", false),
        ("--chmod=u=rw,go=", true),
        ("--chmod=go-r", true),
        ("--chmod=a+r", true),
        ("--chown=3:4", false),
    ] {
        let context = TestContext::of(&format!("FROM scratch\nCOPY {flags} file /\n"));
        context.file("file", "x");
        let runs = modes.map(|mode| {
            context.mode("file", mode);
            executed(&context, &[]).len()
        });
        assert_eq!(runs, [1, usize::from(!hides)], "{flags}");
        let image = Image::of(&context, "app:latest");
        let entry = image.last().get("file").unwrap();
        let mode = match flags {
            "--chmod=640" => 0o640,
            "--chmod=+x" => 0o711,
            "--chmod=a+r" => 0o644,
            _ => 0o600,
        };
        assert_eq!(entry.mode, mode, "{flags}");
        assert_eq!((entry.uid, entry.gid), if flags == "--chown=3:4" { (3, 4) } else { (0, 0) }, "{flags}");
    }
    // A stage's owners are kept, so they count unless --chown hides them.
    let stage = |uid: u32, flags: &str| {
        format!(
            "FROM base AS a\nRUN echo x > /f && chown {uid}:0 /f\nFROM scratch\nCOPY {flags} --from=a /f /\n"
        )
    };
    let context = TestContext::of(&stage(1, ""));
    executed(&context, &[]);
    context.dockerfile(&stage(2, ""));
    assert_eq!(executed(&context, &[]).len(), 2);
    context.dockerfile(&stage(1, "--chown=9"));
    executed(&context, &[]);
    context.dockerfile(&stage(2, "--chown=9"));
    assert_eq!(executed(&context, &[]), [""; 0], "both of them are in the cache");
    context.dockerfile(&stage(3, "--chown=9"));
    assert_eq!(executed(&context, &[]).len(), 1, "the RUN, but not the COPY");
}

/// C-012, C-013: a name depends on the root below, even with --link; a number does not.
#[test]
fn c_012_a_named_owner_is_looked_up_again_when_the_names_change() {
    for (owner, flags, again) in [("jo", "", 2), ("7", "", 2), ("7", "--link", 1), ("7:8", "--link", 1)] {
        let context =
            TestContext::of(&format!("FROM base\nCOPY etc /etc/\nCOPY {flags} --chown={owner} file /file\n"));
        context
            .file("file", "x")
            .file("etc/passwd", "jo:x:1000:1000::/:/bin/sh\n")
            .file("etc/group", "g:x:5:\n");
        assert_eq!(executed(&context, &[]).len(), 2);
        context.file("etc/passwd", "jo:x:2000:2000::/:/bin/sh\n");
        assert_eq!(executed(&context, &[]).len(), again, "{owner} {flags}");
        let image = Image::of(&context, "app:latest");
        let uid = image.last().get("file").unwrap().uid;
        assert_eq!(uid, if owner == "jo" { 2000 } else { 7 }, "{owner} {flags}");
    }
}

/// C-013: what a COPY stands on is part of its key unless it is linked.
#[test]
fn c_013_a_changed_parent_runs_a_copy_again_unless_it_is_linked() {
    for (flags, again) in [("", 2), ("--link", 1)] {
        let dockerfile = |text: &str| format!("FROM base\nRUN echo {text} > /x\nCOPY {flags} file /file\n");
        let context = TestContext::of(&dockerfile("one"));
        context.file("file", "x");
        executed(&context, &[]);
        context.dockerfile(&dockerfile("two"));
        assert_eq!(executed(&context, &[]).len(), again, "{flags}");
        let image = Image::of(&context, "app:latest");
        assert_eq!(image.layers[image.layers.len() - 2].get("x").unwrap().data, b"two\n");
        assert_eq!(image.last().get("file").unwrap().data, b"x");
    }
}

/// C-014: bind mounts count by content, whatever they are called; names and places of mounts count.
#[test]
fn c_014_a_bind_mount_counts_by_content() {
    let dockerfile = |mount: &str| format!("FROM base\nRUN --mount={mount} ls /m > /out\n");
    let context = TestContext::of(&dockerfile("source=one,target=/m"));
    context.file("one/f", "x").file("two/f", "x").file("unread", "1");
    assert_eq!(executed(&context, &[]).len(), 1);
    context.dockerfile(&dockerfile("source=two,target=/m"));
    assert_eq!(executed(&context, &[]).len(), 0, "the same content in another place");
    context.file("unread", "2");
    assert_eq!(executed(&context, &[]).len(), 0, "a file beside it");
    context.mode("two/f", 0o600);
    assert_eq!(executed(&context, &[]).len(), 1, "a mode");
    context.file("two/f", "y");
    assert_eq!(executed(&context, &[]).len(), 1, "bytes");
    context.dockerfile(&dockerfile("source=two,target=/m,rw"));
    assert_eq!(executed(&context, &[]).len(), 1, "whether it can be written");
    // From a stage: by content as well.
    let staged = |text: &str| {
        format!(
            "FROM base AS a\nRUN mkdir /d && echo x > /d/f # {text}\n{}",
            dockerfile("from=a,source=/d,target=/m")
        )
    };
    context.dockerfile(&staged("one"));
    assert_eq!(executed(&context, &[]).len(), 2);
    context.dockerfile(&staged("two"));
    assert_eq!(executed(&context, &[]).len(), 1, "the stage made the same files");
}

/// C-014: files that came about at another time make no other layer, but a time that a step gives does.
#[test]
fn times_that_steps_give_are_content() {
    let dockerfile = |touch: &str| format!("FROM base\nRUN {touch}\nRUN echo ran\n");
    let context = TestContext::of(&dockerfile("touch -t 201701010000 /f"));
    assert_eq!(executed(&context, &[]).len(), 2);
    for (touch, steps) in [
        ("touch -t 201801010000 /f", 2),
        ("touch /f", 2),
        ("touch /f # again", 1),
        ("touch -t 201801010000 /f; true", 1),
    ] {
        context.dockerfile(&dockerfile(touch));
        assert_eq!(executed(&context, &[]).len(), steps, "{touch}");
    }
}

/// C-015: metadata makes no step, and acts on steps only through what they see.
#[test]
fn c_015_metadata_makes_no_step() {
    let plain = "FROM base\nRUN echo ran\n";
    let context = TestContext::of(plain);
    executed(&context, &[]);
    let metadata = "LABEL a=b\nEXPOSE 80\nCMD [\"x\"]\nENTRYPOINT [\"y\"]\nVOLUME /v\nSTOPSIGNAL 9\n\
        HEALTHCHECK CMD true\nMAINTAINER me\nONBUILD RUN x\n";
    for dockerfile in [format!("{plain}{metadata}"), plain.replace("RUN", &format!("{metadata}RUN"))] {
        let run = context.dockerfile(&dockerfile).build(&["-t", "app"]).ok();
        assert_eq!(run.executed(), [""; 0], "{}", run.stderr);
        assert!(run.stderr.contains("\n2 steps: "), "the base and one RUN: {}", run.stderr);
    }
    for (instruction, again) in [
        ("ENV A=1", 1),
        ("ARG B=1", 1),
        ("ARG C", 0),
        ("WORKDIR /w", 2),
        ("USER 5", 1),
        ("SHELL [\"sh\", \"-ec\"]", 1),
    ] {
        context.dockerfile(&plain.replace("RUN", &format!("{instruction}\nRUN")));
        assert_eq!(executed(&context, &[]).len(), again, "{instruction}");
    }
}

/// C-018: what stands behind a hit need not exist.
#[test]
fn c_018_steps_behind_a_hit_are_not_looked_for() {
    let context = TestContext::of(
        "FROM base AS a\nRUN echo a-$((1+1)) > /x\nFROM base\nCOPY --from=a /x /x\nRUN cat /x > /y\n",
    );
    assert_eq!(executed(&context, &[]).len(), 3);
    // The image's layers are packed; those of the stage are now nowhere.
    std::fs::remove_dir_all(context.store().join("snapshots")).unwrap();
    assert_eq!(executed(&context, &[]), [""; 0]);
}

/// C-019: what --no-cache, --no-cache-filter and --pull do, and what they do not.
#[test]
fn c_019_stages_are_named_in_any_case() {
    let context = TestContext::of(
        "FROM base AS First\nRUN echo a > /a\nFROM base AS second\nRUN echo b > /b\nFROM base\nRUN echo c > /c\n\
         COPY --from=First /a /\nCOPY --from=second /b /\n",
    );
    assert_eq!(executed(&context, &[]).len(), 5);
    for (stages, again) in [
        ("first", vec!["RUN echo a > /a"]),
        ("FIRST,SECOND", vec!["RUN echo a > /a", "RUN echo b > /b"]),
        ("none", vec![]),
    ] {
        let mut ran = executed(&context, &[&format!("--no-cache-filter={stages}")]);
        ran.sort_by_key(|name| again.iter().position(|expected| name == expected));
        assert_eq!(ran, again, "{stages}");
        assert_eq!(executed(&context, &[]), [""; 0], "what {stages} made is in the cache");
    }
    let twice = executed(&context, &["--no-cache-filter=first", "--no-cache-filter=Second"]);
    assert_eq!(twice.len(), 2, "the flag may be repeated");
}

/// C-019: results of --no-cache are written, its own steps run once, and what it made is what later builds use.
#[test]
fn c_019_no_cache_reads_nothing_and_writes() {
    let context = TestContext::of("FROM base\nRUN cat /proc/sys/kernel/random/uuid > /x\nRUN cat /x > /y\n");
    executed(&context, &[]);
    let text = || {
        let image = Image::of(&context, "app:latest");
        String::from_utf8_lossy(&image.last().get("y").unwrap().data).into_owned()
    };
    let first = text();
    assert_eq!(executed(&context, &["--no-cache"]).len(), 2);
    let second = text();
    assert_ne!(first, second, "all of it ran");
    assert_eq!(executed(&context, &[]), [""; 0]);
    assert_eq!(text(), second, "what ran last is what is kept");
}

/// C-019: --no-cache asks no registry; --pull asks even for what the store has.
#[test]
fn c_019_only_pull_asks_for_the_base_again() {
    let registry = TestRegistry::start(Options::default());
    let name = format!("{}/team/base:1", registry.host());
    let context = TestContext::of("FROM base\nRUN echo base > /base\n");
    context.build(&["-t", &name, "--push"]).ok();
    context.dockerfile(&format!("FROM {name}\nRUN cat /base\n"));
    registry.clear_log();
    executed(&context, &["--no-cache"]);
    assert_eq!(registry.log().len(), 0, "the store has it: {:?}", registry.log());
    executed(&context, &["--pull"]);
    assert!(registry.count("HEAD", "/manifests/1") > 0, "{:?}", registry.log());
    registry.clear_log();
    executed(&context, &["--pull=false"]);
    assert_eq!(registry.log().len(), 0, "{:?}", registry.log());
    drop(registry);
    context.build(&["--pull"]).fails(3, &[]);
    context.build(&["--no-cache"]).ok();
}
