//! Every Dockerfile of buildah's own comparison suite is built or refused for a stated reason; what comes out is compared with
//! `testdata/conformance/buildah.txt`.
//!
//! The contexts are at `$RBUILD_CONFORMANCE` or `../shared/conformance` and no part of this repository. The expected results
//! follow BuildKit (features.md, sections A and B), not buildah, where these differ: volumes keep later changes, an
//! ARG has no value before its line, a stage inherits declared ARGs, a scratch image has WorkingDir `/` (B-004).
//! `RBUILD_BLESS=1` writes the file anew.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that says what it did"
)]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{BASE_TIME, Context, Entry, Image, Outcome, Site, conformance_data, copy_tree, set_times};

/// Time of every file of a context: any fixed one.
const CONTEXT_TIME: i64 = 1_485_449_953;

/// Dockerfiles that must not build: exit code and a part of the message.
const REFUSED: &[(&str, i32, &str)] = &[
    // a single quote cannot be escaped inside single quotes.
    ("Dockerfile.env", 2, "looking for matching single-quote"),
    ("transientmount/Dockerfile.env", 2, "looking for matching single-quote"),
    // The file it lists at the end is none of those it copies; buildah and docker fail there too.
    ("copychown/Dockerfile", 1, "did not complete successfully: exit code: 1"),
    // what .dockerignore leaves out is not found.
    ("dockerignore/allowlist/alternating-nothing/Dockerfile", 2, "subdir5\": not found"),
    ("dockerignore/allowlist/alternating-other/Dockerfile", 2, "subdir5\": not found"),
    ("dockerignore/allowlist/subdir-nofile/Dockerfile", 2, "\"/folder1\": not found"),
    ("dockerignore/integration3/Dockerfile", 2, "\"/test1.txt\": not found"),
    // What these read is mounted by `buildah bud --volume` (G-004), which rbuild does not have.
    ("mount/Dockerfile", 1, "did not complete successfully: exit code: 1"),
    ("transientmount/Dockerfile", 1, "did not complete successfully: exit code: 1"),
    // BuildKit neither replaces a directory by a link nor a link by a directory; buildah and the classic builder do.
    ("replace/symlink-with-directory/Dockerfile", 2, "cannot copy to non-directory: /maybe-directory"),
    (
        "replace/symlink-with-directory/Dockerfile.2",
        2,
        "cannot replace to directory /maybe-directory with file",
    ),
    (
        "replace/symlink-with-directory/Dockerfile.3",
        2,
        "cannot replace to directory /tree/maybe-directory with file",
    ),
    ("replace/symlink-with-directory/Dockerfile.4", 2, "cannot copy to non-directory: /tree/maybe-directory"),
];

/// Dockerfiles that are not built, and why.
const SKIPPED: &[(&str, &str)] = &[
    ("Dockerfile.add", "reads github.com"),
    ("header-builtin/Dockerfile", "needs two images of quay.io by digest"),
];

/// `--build-arg`s of upstream's test.
const BUILD_ARGS: &[(&str, &[&str])] = &[
    (
        "builtins/Dockerfile",
        &[
            "SOURCE=source",
            "BUSYBOX=mirror.gcr.io/busybox",
            "ALPINE=mirror.gcr.io/alpine",
            "OWNERID=0",
            "SECONDBASE=localhost/no-such-image",
        ],
    ),
    ("copyglob/Dockerfile", &["SOURCE=**/*.txt"]),
];

/// Paths that name a base image this test cannot make on every machine.
const NEEDS_BASH: &str = "quay.io/libpod/centos:7";

#[test]
fn buildahs_dockerfiles_build_as_with_buildkit() {
    const TEST: &str = "buildahs_dockerfiles_build_as_with_buildkit";
    let Some(data) = conformance_data().map(|dir| dir.join("buildah-conformance/testdata")) else {
        println!("skipped: {TEST}: no conformance data (set RBUILD_CONFORMANCE)");
        return;
    };
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: {TEST}: the expected results are for x86-64");
        return;
    }
    let Some(site) = support::site(TEST) else { return };
    let bash = make_centos(site);
    let cases = dockerfiles(&data);
    assert_eq!(cases.len(), 91, "the suite has changed");
    let results = Mutex::new(BTreeMap::new());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = run(site, &data, case, bash);
                    results.lock().unwrap().insert(case.clone(), result);
                }
            });
        }
    });
    report(&results.into_inner().unwrap());
}

/// What became of a Dockerfile.
enum Result {
    /// Its image, as text.
    Built(String),
    /// Refused as expected.
    Refused,
    Skipped(String),
    /// Something else.
    Wrong(String),
}

fn dockerfiles(data: &Path) -> Vec<String> {
    fn walk(dir: &Path, data: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, data, found);
            } else if path.file_name().unwrap().to_str().unwrap().starts_with("Dockerfile") {
                found.push(path.strip_prefix(data).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(data, data, &mut found);
    found.sort();
    found
}

/// The context of a Dockerfile as upstream's test has it: its directory in the data (`None`: only itself), and its name there.
fn place(case: &str) -> (Option<&str>, &str) {
    match case {
        "subdir/subdir/Dockerfile" => (Some("subdir"), "subdir/Dockerfile"),
        "heredoc/Dockerfile.heredoc_copy" => (Some("heredoc"), "Dockerfile.heredoc_copy"),
        _ => match case.rsplit_once('/') {
            Some((dir, name)) => (Some(dir), name),
            None => (None, case),
        },
    }
}

fn prepare(context: &Context<'_>, data: &Path, case: &str) -> PathBuf {
    let (dir, name) = place(case);
    match dir {
        Some(dir) => copy_tree(&data.join(dir), &context.dir),
        None => drop(fs::copy(data.join(case), context.dir.join(name)).unwrap()),
    }
    modes(&context.dir);
    // Symlinks, odd names and a program, which the stored data cannot hold.
    let link = |name: &str, target: &str| {
        fs::remove_file(context.dir.join(name)).unwrap();
        symlink(target, context.dir.join(name)).unwrap();
    };
    match dir {
        Some("copysymlink") => link("file-link.tar.gz", "file.tar.gz"),
        Some("replace/symlink-with-directory") => link("tree1/maybe-directory", "directory"),
        Some("copy-escape-glob") => {
            context.file("app/n?pe/file.txt", "and also").file("app/st*uv/file.txt", "and yet");
        }
        Some("mount-targets") => {
            context.file("true", program()).mode("true", 0o755);
        }
        _ => {}
    }
    set_times(&context.dir, CONTEXT_TIME);
    context.dir.join(name)
}

/// The smallest program for Linux on x86-64 that ends with 0.
fn program() -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    let words = |elf: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| elf.extend(v.to_le_bytes()));
    words(&mut elf, &[0x40_0078, 64, 0]);
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    words(&mut elf, &[0, 0x40_0000, 0x40_0000, 129, 129, 4096]);
    // mov eax, 60; xor edi, edi; syscall
    elf.extend([0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]);
    elf
}

/// The data was stored read-only: 0755 and 0644, as in upstream's checkout.
fn modes(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            modes(&path);
        } else if kind.is_file() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
    }
}

fn run(site: &Site, data: &Path, case: &str, bash: bool) -> Result {
    if let Some((_, reason)) = SKIPPED.iter().find(|(name, _)| *name == case) {
        return Result::Skipped((*reason).to_owned());
    }
    let context = site.context();
    let dockerfile = prepare(&context, data, case);
    let uses_bash = fs::read_to_string(&dockerfile).unwrap().contains(NEEDS_BASH);
    if uses_bash && !bash {
        return Result::Skipped("the host has no bash to make a base image of".into());
    }
    let name = format!("test.local/{}", context.dir.file_name().unwrap().to_string_lossy());
    let mut args = vec!["-f", dockerfile.to_str().unwrap(), "-t", &name];
    for arg in BUILD_ARGS.iter().filter(|(name, _)| *name == case).flat_map(|(_, args)| *args) {
        args.extend(["--build-arg", *arg]);
    }
    let Outcome { code, output } = context.build(&args);
    let refused = REFUSED.iter().find(|(name, ..)| *name == case);
    match (code, refused) {
        (0, None) => {
            let image = Image::read(site.store(), &format!("{name}:latest"));
            let base = if uses_bash { NEEDS_BASH } else { "mirror.gcr.io/busybox:latest" };
            Result::Built(describe(&image, &base_files(site, &image, base)))
        }
        (0, Some((.., message))) => Result::Wrong(format!("builds, though `{message}` was expected")),
        (code, Some((_, wanted, message))) if code == *wanted && output.contains(message) => Result::Refused,
        (code, _) => Result::Wrong(format!("exit code {code}\n{output}")),
    }
}

/// What the image begins with: nothing if it is made from scratch.
fn base_files(site: &Site, image: &Image, base: &str) -> BTreeMap<String, Entry> {
    let base = Image::read(site.store(), base);
    let digest = |image: &Image| image.manifest["layers"][0]["digest"].clone();
    if digest(&base) == digest(image) { base.files } else { BTreeMap::new() }
}

fn describe(image: &Image, base: &BTreeMap<String, Entry>) -> String {
    let mut out = String::new();
    for (key, value) in image.config().as_object().unwrap() {
        writeln!(out, "{key}: {value}").unwrap();
    }
    for line in
        image.history().iter().filter(|line| !line.contains("COPY root/ /") && *line != "- CMD [\"sh\"]")
    {
        writeln!(out, "{}", fingerprint(line)).unwrap();
    }
    let layers = image.history().iter().filter(|line| !line.starts_with("- ")).count();
    assert_eq!(layers, image.layers.len(), "every layer has an entry in the history (B-010)");
    out + &image.listing(base, &[(CONTEXT_TIME, "context"), (BASE_TIME, "base"), (0, "zero")])
}

/// A line of the history without upstream's text, which is not ours to keep: the instruction, and a hash of the rest.
fn fingerprint(line: &str) -> String {
    let (empty, text) = line.strip_prefix("- ").map_or(("", line), |text| ("- ", text));
    let (instruction, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
    format!("{empty}{instruction} {:016x}", support::fnv(rest.as_bytes()))
}

/// A stand-in for CentOS: busybox with the host's bash as /bin/bash and /bin/sh, and a user that CentOS has.
fn make_centos(site: &Site) -> bool {
    let Ok(ldd) = Command::new("ldd").arg("/bin/bash").output() else { return false };
    if !ldd.status.success() {
        return false;
    }
    let context = site.context();
    let text = String::from_utf8_lossy(&ldd.stdout).into_owned();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for file in ["/bin/bash"].into_iter().chain(libraries) {
        context.file(&format!("root{file}"), fs::read(file).unwrap()).mode(&format!("root{file}"), 0o755);
    }
    let lp = "lp:x:4:7:lp:/var/spool/lpd:/sbin/nologin\n";
    let passwd = Image::read(site.store(), "mirror.gcr.io/busybox:latest").text("etc/passwd").to_owned();
    context.file("root/etc/passwd", passwd + lp);
    context.symlink("root/bin/sh", "bash");
    set_times(&context.dir, BASE_TIME);
    context.file(
        "Dockerfile",
        "FROM busybox AS base\nCOPY root/ /\nFROM scratch\nCOPY --from=base / /\nCMD [\"/bin/bash\"]\n",
    );
    context.build(&["-t", NEEDS_BASH]).code == 0
}

fn report(results: &BTreeMap<String, Result>) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/conformance/buildah.txt");
    let (mut passed, mut refused, mut skipped) = (0, 0, 0);
    let mut wrong: Vec<String> = Vec::new();
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    let wanted = sections(&expected);
    let mut text = String::new();
    let bless = std::env::var_os("RBUILD_BLESS").is_some();
    for (case, result) in results {
        match result {
            Result::Built(found) => {
                writeln!(text, "== {case}\n{}\n", found.trim_end()).unwrap();
                match wanted.get(case.as_str()) {
                    Some(wanted) if wanted.trim_end() == found.trim_end() || bless => passed += 1,
                    Some(wanted) => wrong.push(format!("{case}: {}", first_difference(wanted, found))),
                    None if bless => passed += 1,
                    None => wrong.push(format!("{case}: builds, but no result is expected:\n{found}")),
                }
            }
            Result::Refused => refused += 1,
            Result::Skipped(reason) => {
                skipped += 1;
                println!("skipped: {case}: {reason}");
            }
            Result::Wrong(what) => wrong.push(format!("{case}: {what}")),
        }
    }
    if bless {
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        fs::write(&golden, text).unwrap();
    }
    println!("buildah: {} run, {passed} as expected, {refused} refused, {skipped} skipped", results.len());
    for (case, ..) in REFUSED {
        assert!(results.contains_key(*case), "{case} is no Dockerfile of the suite");
    }
    assert!(wrong.is_empty(), "{} differ:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

fn sections(text: &str) -> BTreeMap<&str, &str> {
    let parts = text.strip_prefix("== ").unwrap_or(text).split("\n== ");
    parts.filter_map(|part| part.split_once('\n')).collect()
}

fn first_difference(wanted: &str, found: &str) -> String {
    let (wanted, found): (Vec<&str>, Vec<&str>) =
        (wanted.trim_end().lines().collect(), found.trim_end().lines().collect());
    let only = |these: &[&str], those: &[&str], sign: &str| {
        let lines = these.iter().filter(|line| !those.contains(line));
        lines.map(|line| format!("\n  {sign} {line}")).collect::<String>()
    };
    only(&wanted, &found, "expected") + &only(&found, &wanted, "found")
}
