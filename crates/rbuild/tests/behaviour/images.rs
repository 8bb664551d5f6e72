//! Dockerfiles as people write them, whole: `testdata/images/<name>` has a `Dockerfile` with its context and, where they are needed,
//! the `base.Dockerfile` of an image to begin with, further arguments (`args`, one a line, `@/` is the context) and variables
//! (`env`). `expected.txt` is what BuildKit makes of it: the configuration without times and digests, then what the files differ
//! in from those of the base image, a line a path. It was worked out from features.md and BuildKit's source.
//!
//! `RBUILD_BLESS=1` writes `expected.txt` anew, to be read before it is believed.

use super::site;
use crate::support::{BASE_TIME, Image, Site, copy_tree, set_times};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Time of every file of a context: any fixed one.
const CONTEXT_TIME: i64 = 1_450_000_000;

/// All of section A that images show: every folder of `testdata/images` is built and compared.
#[test]
fn whole_dockerfiles_make_the_expected_images() {
    let site = site!("whole_dockerfiles_make_the_expected_images");
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: whole_dockerfiles_make_the_expected_images: the expected images are for amd64");
        return;
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/images");
    let folders = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = folders.filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(folders.len() > 20, "{folders:?}");
    let (folders, wrong) = (Mutex::new(folders), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(folder) = folders.lock().unwrap().pop() else { return };
                    if let Err(difference) = check(site, &folder) {
                        wrong.lock().unwrap().push(difference);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check(site: &Site, folder: &Path) -> Result<(), String> {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let made =
        describe(site, folder, name).map_err(|output| format!("=== {name} does not build:\n{output}"))?;
    let path = folder.join("expected.txt");
    if std::env::var_os("RBUILD_BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected == made {
        return Ok(());
    }
    let missing = expected.lines().filter(|line| !made.lines().any(|other| other == *line));
    let surplus = made.lines().filter(|line| !expected.lines().any(|other| other == *line));
    let lines: Vec<String> =
        missing.map(|line| format!("-{line}")).chain(surplus.map(|line| format!("+{line}"))).collect();
    Err(format!("=== {name} (- expected, + made):\n{}", lines.join("\n")))
}

/// Builds the folder; the error is what the build said.
fn describe(site: &Site, folder: &Path, name: &str) -> Result<String, String> {
    let context = site.context();
    copy_tree(folder, &context.dir);
    let take = |file: &str| {
        let text = fs::read_to_string(context.dir.join(file)).unwrap_or_default();
        let _ = fs::remove_file(context.dir.join(file));
        text.replace("@/", &format!("{}/", context.dir.display()))
    };
    let (args, environment, base, _) =
        (take("args"), take("env"), take("base.Dockerfile"), take("expected.txt"));
    normalise(&context.dir);
    set_times(&context.dir, CONTEXT_TIME);
    if !base.is_empty() {
        let other = site.context();
        other.file("Dockerfile", base);
        let built = other.build(&["-t", &format!("test.local/{name}-base")]);
        assert_eq!(built.code, 0, "{name}: {}", built.output);
    }
    let tag = format!("test.local/images-{name}");
    let args: Vec<&str> = args.lines().chain(["-t", &tag]).collect();
    let environment: Vec<(&str, &str)> =
        environment.lines().filter_map(|line| line.split_once('=')).collect();
    let built = context.build_with(&args, &environment);
    if built.code != 0 {
        return Err(built.output);
    }
    let mut image = Image::read(site.store(), &format!("{tag}:latest"));
    let config = serde_json::to_string_pretty(&without_times(&image.document)).unwrap();
    let times = [(BASE_TIME, "base"), (CONTEXT_TIME, "context"), (0, "-")];
    let mut base = Image::read(site.store(), "docker.io/library/busybox:latest").files;
    if !image.has("bin/busybox") {
        base.clear();
    }
    // A directory's time is mostly that of the build.
    for entry in base.values_mut().chain(image.files.values_mut()).filter(|entry| entry.kind == 'd') {
        entry.mtime = 0;
    }
    Ok(format!("{config}\n\nlayers: {}\n{}", image.layers.len(), image.listing(&base, &times)))
}

/// Permissions as git keeps them, whatever the umask was.
fn normalise(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let mode = if meta.is_dir() || meta.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)).unwrap();
        if meta.is_dir() {
            normalise(&entry.path());
        }
    }
}

/// The configuration document without what is otherwise in every build.
fn without_times(document: &Value) -> Value {
    let mut document = document.clone();
    let fields = document.as_object_mut().unwrap();
    fields.remove("created");
    fields.remove("rootfs");
    for entry in fields["history"].as_array_mut().unwrap() {
        entry.as_object_mut().unwrap().remove("created");
    }
    document
}
