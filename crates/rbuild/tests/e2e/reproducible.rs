//! Same input, same bytes (DESIGN promise 3).

use crate::context::TestContext;
use crate::image::Image;
use std::time::{Duration, UNIX_EPOCH};

const EPOCH: u64 = 1_700_000_000;

const DOCKERFILE: &str = "FROM base AS a\nWORKDIR /work\nRUN echo stage > a && ln a b && mkdir d && chmod 700 d\n\
    FROM base\nWORKDIR /srv/deep\nCOPY . .\nCOPY --from=a /work /work\nRUN echo run > run; touch -d @1000000000 old\n\
    LABEL a=b\n";

/// The same files, made in another order, with other times.
fn context(reverse: bool, mtime: u64) -> TestContext {
    let mut context = TestContext::of(DOCKERFILE);
    context.env("SOURCE_DATE_EPOCH", &EPOCH.to_string());
    let mut names: Vec<String> = (0..40).map(|n| format!("dir{}/file{n}", n % 4)).collect();
    if reverse {
        names.reverse();
    }
    for name in &names {
        context.file(name, name.repeat(50));
    }
    context.symlink("link", "dir0/file0");
    let time = UNIX_EPOCH + Duration::from_secs(mtime);
    for name in names.iter().map(String::as_str).chain(["Dockerfile", "dir0", "dir1", "dir2", "dir3", "."]) {
        std::fs::File::open(context.in_context(name)).unwrap().set_modified(time).unwrap();
    }
    context
}

#[test]
fn two_stores_and_two_directories_give_one_digest() {
    let one = context(false, EPOCH + 1000);
    let two = context(true, EPOCH + 99_999);
    one.build(&["-t", "x", "-o", "type=oci,dest=x.tar", "-o", "type=tar,dest=files.tar"]).ok();
    two.build(&["-t", "x", "-o", "type=oci,dest=x.tar", "-o", "type=tar,dest=files.tar"]).ok();
    let (first, second) = (Image::of(&one, "x:latest"), Image::of(&two, "x:latest"));
    for (one, two) in first.layers.iter().zip(&second.layers) {
        assert_eq!(one.lines(), two.lines());
        let times =
            |layer: &crate::image::Layer| layer.entries.iter().map(|entry| entry.mtime).collect::<Vec<_>>();
        assert_eq!(times(one), times(two), "{:?}", one.lines());
    }
    assert_eq!(first.config, second.config);
    assert_eq!(first.digest, second.digest);
    for name in ["x.tar", "files.tar"] {
        let read = |context: &TestContext| std::fs::read(context.path(name)).unwrap();
        assert!(read(&one) == read(&two), "{name} differs");
    }
}

#[test]
fn no_time_is_later_than_the_epoch_and_older_ones_are_kept() {
    let context = context(false, EPOCH + 5);
    context.build(&["-t", "x"]).ok();
    let image = Image::of(&context, "x:latest");
    for entry in image.layers.iter().flat_map(|layer| &layer.entries) {
        assert!(entry.mtime <= EPOCH, "{}: {}", entry.path, entry.mtime);
    }
    assert_eq!(image.last().get("srv/deep/old").unwrap().mtime, 1_000_000_000);
    assert_eq!(image.config["created"], "2023-11-14T22:13:20Z");
    for entry in image.config["history"].as_array().unwrap() {
        assert_eq!(entry["created"], "2023-11-14T22:13:20Z", "{entry}");
    }
}

#[test]
fn cached_and_uncached_builds_agree() {
    let context = context(false, EPOCH + 5);
    context.build(&["-t", "one"]).ok();
    assert_eq!(context.build(&["-t", "two"]).ok().steps().0, 0);
    context.build(&["-t", "three", "--no-cache"]).ok();
    let digests = ["one", "two", "three"].map(|name| Image::of(&context, &format!("{name}:latest")).digest);
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[0], digests[2]);
}

#[test]
fn without_an_epoch_a_cached_build_gives_the_same_image() {
    let context = TestContext::of("FROM base\nRUN date > /date\nCOPY Dockerfile /\nCMD [\"x\"]\n");
    context.build(&["-t", "one"]).ok();
    let one = Image::of(&context, "one:latest").digest;
    context.build(&["-t", "two"]).ok();
    assert_eq!(Image::of(&context, "two:latest").digest, one);
}

#[test]
fn another_epoch_packs_again_but_runs_nothing() {
    let context = TestContext::of("FROM base\nRUN echo ran-$((1+1)); touch /x\nCOPY Dockerfile /\n");
    context.build(&["-t", "x", "--build-arg", "SOURCE_DATE_EPOCH=1700000001"]).ok();
    let run = context.build(&["-t", "x", "--build-arg", "SOURCE_DATE_EPOCH=1600000000"]).ok();
    assert_eq!((run.count("ran-2"), run.steps().0), (0, 0), "{}", run.stderr);
    let image = Image::of(&context, "x:latest");
    assert_eq!(image.layers[1].get("x").unwrap().mtime, 1_600_000_000);
    assert_eq!(image.last().get("Dockerfile").unwrap().mtime, 1_600_000_000);
    context.build(&["--build-arg", "SOURCE_DATE_EPOCH=soon"]).fails(2, &["SOURCE_DATE_EPOCH"]);
}

#[test]
fn without_an_epoch_times_of_files_are_real() {
    let context = TestContext::of("FROM scratch\nCOPY file /\n");
    context.file("file", "x");
    let time = UNIX_EPOCH + Duration::from_secs(1_234_567_890);
    std::fs::File::open(context.in_context("file")).unwrap().set_modified(time).unwrap();
    context.build(&["-t", "x"]).ok();
    assert_eq!(Image::of(&context, "x:latest").last().get("file").unwrap().mtime, 1_234_567_890);
}

/// B-013: with an epoch, too, if the output says so; and the store keeps both forms apart.
#[test]
fn times_of_files_are_kept_on_request() {
    let context = context(false, EPOCH + 5);
    let newest = |output: &str| {
        let output = format!("type=oci,dest=layout,tar=false{output}");
        context.build(&["-o", &output]).ok();
        let image = Image::only(&context.path("layout"));
        std::fs::remove_dir_all(context.path("layout")).unwrap();
        let times = image.layers.iter().flat_map(|layer| &layer.entries).map(|entry| entry.mtime);
        (times.max().unwrap() > EPOCH, image.config["created"].clone())
    };
    let (later, created) = newest("");
    assert!(!later);
    assert_eq!(newest(",rewrite-timestamp=false"), (true, created.clone()), "only files' times");
    assert_eq!(newest(",rewrite-timestamp=true"), (false, created));
}
