//! The README's commands work: what it tells `rbuild` to do is done, in a project of a user.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stdout, reason = "tests say what they do and skip")]
#![allow(clippy::disallowed_methods, reason = "a test passes PATH on")]

use rbuild_testkit::{Options, TestRegistry};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The commands of all ```sh blocks, without comments and blank lines.
fn commands() -> Vec<String> {
    let readme = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let mut found = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match line.trim() {
            "```sh" => inside = true,
            text if text.starts_with("```") => inside = false,
            text if inside => {
                let command = text.split(" # ").next().unwrap_or_default().trim();
                if !command.is_empty() && !command.starts_with('#') {
                    found.push(command.to_owned());
                }
            }
            _ => {}
        }
    }
    found
}

/// A directory with everything that the README's commands name.
fn project() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let made = Command::new(workspace().join("scripts/make-base.sh"))
        .arg(dir.path().join("made"))
        .arg("busybox")
        .env("RBUILD", env!("CARGO_BIN_EXE_rbuild"))
        .status()
        .unwrap();
    assert!(made.success());
    std::fs::create_dir(dir.path().join("bases")).unwrap();
    std::fs::rename(dir.path().join("made/busybox"), dir.path().join("bases/debian")).unwrap();
    std::fs::create_dir(dir.path().join("deploy")).unwrap();
    let dockerfile =
        "FROM scratch AS base\nFROM base AS build\nARG VERSION\nCOPY hello /\nFROM build\nLABEL last=yes\n";
    std::fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(dir.path().join("deploy/Dockerfile"), dockerfile).unwrap();
    std::fs::write(dir.path().join("hello"), "hello\n").unwrap();
    dir
}

/// A command that is not `rbuild`'s: what it names must exist. They run this test themselves, or take long.
fn check_other(command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    if words[0].starts_with("scripts/") || words[0].starts_with("./scripts/") {
        use std::os::unix::fs::PermissionsExt as _;
        let meta = std::fs::metadata(workspace().join(words[0]));
        let mode = meta.unwrap_or_else(|error| panic!("{}: {error}", words[0])).permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{} can be executed", words[0]);
        return;
    }
    assert_eq!(words[0], "cargo", "this test does not know how to check `{command}`");
    let after = |flag: &str| words.iter().position(|word| *word == flag).map(|at| words[at + 1]);
    let manifests = ["benches/Cargo.toml", "crates/rbuild/Cargo.toml"];
    let texts = manifests.map(|path| std::fs::read_to_string(workspace().join(path)).unwrap());
    if let Some(package) = after("-p") {
        assert!(
            texts.iter().any(|text| text.contains(&format!("name = \"{package}\""))),
            "package of `{command}`"
        );
    }
    if let Some(binary) = after("--bin") {
        let declared = texts.iter().any(|text| text.contains(&format!("name = \"{binary}\"")));
        let found = ["benches", "crates/rbuild"].iter().any(|dir| {
            let file = format!("{dir}/src/bin/{binary}");
            workspace().join(format!("{file}.rs")).exists() || workspace().join(file).exists()
        });
        assert!(declared || found, "binary of `{command}`");
    }
}

#[test]
fn every_command_of_the_readme_works() {
    let registry = TestRegistry::start(Options::default());
    let project = project();
    let binary = Path::new(env!("CARGO_BIN_EXE_rbuild"));
    let mut ran = 0;
    for command in commands() {
        println!("{command}");
        if !command.starts_with("rbuild ") {
            check_other(&command);
            continue;
        }
        let typed = command.replace("registry.example:5000", &registry.host());
        let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let out = Command::new("bash")
            .args(["-euc", &typed])
            .current_dir(project.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", project.path())
            .env("RBUILD_ROOT", project.path().join("store"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(out.status.success(), "{command}\n{}", String::from_utf8_lossy(&out.stderr));
        ran += 1;
    }
    assert!(ran >= 6, "only {ran} commands of rbuild were found in the README");
    assert!(project.path().join("app.tar").exists(), "-o type=oci,dest=app.tar");
    assert_eq!(registry.count("PUT", "/v2/app/manifests/1.0"), 1);
}

#[test]
fn the_readmes_exit_codes_are_those_of_the_program() {
    let readme = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let code = std::fs::read_to_string(workspace().join("crates/build/src/error.rs")).unwrap();
    for number in ["1", "2", "3", "4", "5", "130"] {
        assert!(readme.contains(&format!("| {number} |")), "{number} is in the README's table");
        assert!(code.contains(&format!("=> {number},")), "{number} is in ErrorKind::exit_code");
    }
}
