//! ADD of git repositories.

use crate::lab::{Lab, holding};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

/// A repository `r` with a tag, a branch, modes, a link and a directory; gives its first and last commit.
fn example(lab: &Lab) -> (String, String) {
    lab.repository("r");
    lab.write("r", "f", "one");
    let first = lab.commit("r");
    lab.git("r", &["tag", "-a", "-m", "x", "v1"]);
    lab.write("r", "f", "two");
    lab.write("r", "run.sh", "#!/bin/sh");
    lab.write("r", "sub/deep/g", "three");
    let run = lab.path("git/r/run.sh");
    fs::set_permissions(run, fs::Permissions::from_mode(0o700)).unwrap();
    symlink("sub/deep", lab.path("git/r/link")).unwrap();
    let last = lab.commit("r");
    lab.git("r", &["branch", "release/1.0"]);
    (first, last)
}

/// A-117
#[test]
fn a_117_branches_tags_and_commits() {
    let Some(lab) = Lab::with_git("a_117_branches_tags_and_commits") else { return };
    let (first, last) = example(&lab);
    let url = lab.remote("r");
    let image = lab.image(&format!(
        "ADD {url} /head\nADD {url}#v1 /tag\nADD {url}#refs/tags/v1 /fulltag\nADD {url}#release/1.0 /branch\n\
         ADD {url}#{first} /commit\nADD {url}#main:sub/deep /sub\nADD {url}#main:link /through\n\
         ADD {url}?tag=v1 /query\nADD {url}?branch=main&subdir=sub /querysub\n\
         ADD --chown=5:6 {url}?mtime=commit /dated"
    ));
    for (path, text) in [
        ("head/f", "two"),
        ("tag/f", "one"),
        ("fulltag/f", "one"),
        ("branch/f", "two"),
        ("commit/f", "one"),
        ("sub/g", "three"),
        ("through/g", "three"),
        ("query/f", "one"),
        ("querysub/deep/g", "three"),
        ("dated/f", "two"),
    ] {
        assert_eq!(image.text(path), text, "{path}");
    }
    for (path, mode) in [("head/f", 0o644), ("head/run.sh", 0o755), ("head/sub", 0o755), ("head", 0o755)] {
        assert_eq!((image.entry(path).mode, image.entry(path).owner().as_str()), (mode, "0:0"), "{path}");
    }
    assert_eq!(image.entry("head/link").link, "sub/deep");
    assert!(!image.paths().iter().any(|path| path.contains(".git")));
    let dated = image.entry("dated/f");
    assert_eq!((dated.mtime, dated.owner().as_str()), (1_600_000_000, "5:6"));
    assert_ne!(first, last);
}

/// A-117: the parents of the commit are not needed, and not here.
#[test]
fn a_117_the_time_of_a_commit_whose_parents_are_not_here() {
    let Some(lab) = Lab::with_git("a_117_the_time_of_a_commit_whose_parents_are_not_here") else { return };
    example(&lab);
    let image = lab.image(&format!("ADD {}?mtime=commit /dated", lab.remote("r")));
    assert_eq!(image.entry("dated/f").mtime, 1_600_000_000);
}

/// A-117
#[test]
fn a_117_the_repository_stays_when_asked() {
    let Some(lab) = Lab::with_git("a_117_the_repository_stays_when_asked") else { return };
    let (first, _) = example(&lab);
    let url = lab.remote("r");
    lab.build_with(
        &format!("ADD --keep-git-dir {url}#{first} /r\nADD --keep-git-dir=true {url}#main:sub /sub"),
        &["-o", "out"],
    )
    .succeeded();
    let git = |args: &[&str]| lab.git("../out/r", args);
    assert_eq!(git(&["rev-parse", "HEAD"]), first);
    assert_eq!(git(&["status", "--short"]), "");
    assert_eq!(git(&["remote", "get-url", "origin"]), url);
    assert_eq!(git(&["fsck"]), "");
    assert!(!lab.path("out/sub/.git").exists() && lab.path("out/sub/deep/g").exists());
}

/// C-016
#[test]
fn c_016_the_commit_is_the_key() {
    let Some(lab) = Lab::with_git("c_016_the_commit_is_the_key") else { return };
    let (_, last) = example(&lab);
    let url = lab.remote("r");
    let add = format!("ADD {url}#main /r");
    lab.build(&add).succeeded();
    lab.server.take_log();
    assert!(lab.build(&add).succeeded().all_cached());
    // Only the references were asked for.
    let asked = lab.server.take_log();
    assert!(asked.iter().all(|seen| !seen.target.contains("objects")) && asked.len() <= 2, "{asked:?}");

    lab.write("r", "f", "moved");
    lab.commit("r");
    assert_eq!(lab.image(&add).text("r/f"), "moved");

    // The same commit by another name, and by its id, needs nothing new.
    lab.server.take_log();
    let pinned = format!("ADD {url}#{last} /r");
    assert!(lab.build(&pinned).succeeded().all_cached());
    assert_eq!(lab.image(&format!("COPY Dockerfile /\n{pinned}")).text("r/f"), "two");
    let by_checksum = format!("ADD --checksum={last} {url}#release/1.0 /r");
    assert!(lab.build(&by_checksum).succeeded().all_cached());
    assert_eq!(lab.server.take_log().len(), 0, "pinned and in the store");
}

/// A-116
#[test]
fn a_116_the_checksum_is_a_commit() {
    let Some(lab) = Lab::with_git("a_116_the_checksum_is_a_commit") else { return };
    let (first, last) = example(&lab);
    let url = lab.remote("r");
    for checksum in [&last[..8], &last] {
        let wrong = format!("expected checksum to match {checksum}, got {first}");
        lab.build(&format!("ADD --checksum={checksum} {url}#v1 /a")).refused(3, &wrong);
    }
    let image =
        lab.image(&format!("ADD --checksum={} {url}#v1 /a\nADD {url}?checksum={last} /b", &first[..8]));
    assert_eq!((image.text("a/f"), image.text("b/f")), ("one", "two"));
    let tag = lab.git("r", &["rev-parse", "v1"]);
    assert_eq!(lab.image(&format!("ADD --checksum={tag} {url}#v1 /a")).text("a/f"), "one");
    let unknown = "0123456789012345678901234567890123456789";
    lab.build(&format!("ADD {url}#{unknown} /a")).refused(3, "repository does not contain ref 0123");
    lab.build(&format!("ADD {url}#nothing /a")).refused(3, "repository does not contain ref nothing");
    lab.build(&format!("ADD {url}#main:nothing /a")).refused(3, "there is no directory `nothing`");
    lab.build(&format!("ADD {url}#main:f /a")).refused(3, "there is no directory `f`");
    lab.build(&format!("ADD {} /a", lab.remote("none"))).refused(3, "cannot list the references of");
    lab.build(&format!("COPY {url} /a")).refused(2, "source can't be a git ref for COPY");
}

/// A-117
#[test]
fn a_117_submodules_come_along() {
    let Some(lab) = Lab::with_git("a_117_submodules_come_along") else { return };
    for name in ["inner", "middle", "outer"] {
        lab.repository(name);
        lab.write(name, "f", name);
        lab.commit(name);
    }
    lab.git("middle", &["submodule", "add", "-q", "../inner/.git", "in"]);
    // Relative to the URL that it is fetched from.
    lab.git("middle", &["config", "-f", ".gitmodules", "submodule.in.url", "../../inner/.git"]);
    lab.commit("middle");
    lab.git("outer", &["submodule", "add", "-q", "../middle/.git", "mid"]);
    lab.git("outer", &["config", "-f", ".gitmodules", "submodule.mid.url", &lab.remote("middle")]);
    lab.commit("outer");
    let url = lab.remote("outer");
    let image = lab.image(&format!("ADD {url} /all\nADD {url}?submodules=false /none"));
    assert_eq!((image.text("all/mid/f"), image.text("all/mid/in/f")), ("middle", "inner"));
    assert!(!image.has("none/mid/f") && image.has("none/f"));
    assert!(!image.paths().iter().any(|path| path.ends_with(".git")));
}

#[test]
fn credentials_stay_out_of_everything() {
    let Some(lab) = Lab::with_git("credentials_stay_out_of_everything") else { return };
    example(&lab);
    lab.server.serve_git(lab.path("git"), Some(("somebody", "topsecret")));
    let url = lab.remote("r").replace("http://", "http://somebody:topsecret@");
    let built = lab.build(&format!("ADD --keep-git-dir {url} /r"));
    assert!(!built.succeeded().said.contains("topsecret"), "{}", built.said);
    assert_eq!(holding(&lab.store(), "topsecret"), Vec::<std::path::PathBuf>::new());
    assert!(lab.app().text("r/.git/config").contains(&lab.remote("r")));
    let wrong = lab.build(&format!("ADD {} /r", url.replace("topsecret", "badsecret")));
    wrong.refused(3, "cannot list the references of http://xxxxx:xxxxx@127.0.0.1");
    assert!(!wrong.said.contains("badsecret"), "{}", wrong.said);
}

/// A-117
#[test]
fn a_117_secrets_authenticate() {
    let Some(lab) = Lab::with_git("a_117_secrets_authenticate") else { return };
    example(&lab);
    lab.server.serve_git(lab.path("git"), Some(("x-access-token", "sesame")));
    fs::write(lab.path("token"), "sesame").unwrap();
    fs::write(lab.path("header"), "Basic eC1hY2Nlc3MtdG9rZW46c2VzYW1l").unwrap();
    let url = lab.remote("r");
    lab.build(&format!("ADD {url} /0")).refused(3, "cannot list the references of");
    for (number, secret) in [
        "id=GIT_AUTH_TOKEN,src=token",
        "id=GIT_AUTH_TOKEN.127.0.0.1,src=token",
        "id=GIT_AUTH_HEADER,src=header",
    ]
    .iter()
    .enumerate()
    {
        lab.build_with(&format!("ADD {url} /{number}"), &["--secret", secret]).succeeded();
    }
    assert_eq!(holding(&lab.store(), "sesame"), Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_a_killed_git_left_is_no_obstacle() {
    let Some(lab) = Lab::with_git("what_a_killed_git_left_is_no_obstacle") else { return };
    example(&lab);
    let url = lab.remote("r");
    lab.build(&format!("ADD {url}#v1 /r")).succeeded();
    let repositories = fs::read_dir(lab.store().join("git")).unwrap().map(|entry| entry.unwrap().path());
    let bare = repositories.into_iter().find(|path| path.is_dir()).unwrap();
    for name in ["shallow.lock", "config.lock"] {
        fs::write(bare.join(name), "").unwrap();
    }
    assert_eq!(lab.image(&format!("ADD {url}#main /r")).text("r/f"), "two");
    lab.run(&["prune", "--all", "--force"]).succeeded();
    assert!(!bare.exists());
    assert_eq!(lab.image(&format!("ADD {url}#main /r")).text("r/f"), "two");
}
