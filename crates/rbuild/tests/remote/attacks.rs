//! Repositories and references that want more than to be copied.

use crate::lab::Lab;
use std::fs;
use std::os::unix::fs::symlink;

/// CVE-2026-33748: a subdirectory that leads out of the checkout.
#[test]
fn a_subdirectory_cannot_leave_the_checkout() {
    let Some(lab) = Lab::with_git("a_subdirectory_cannot_leave_the_checkout") else { return };
    fs::create_dir(lab.path("outside")).unwrap();
    fs::write(lab.path("outside/secret"), "x").unwrap();
    lab.repository("r");
    lab.write("r", "etc/own", "own");
    let outside = lab.path("outside");
    let climbing = format!("{}{}", "../".repeat(30), outside.display());
    for (name, target) in
        [("absolute", outside.to_str().unwrap()), ("climbing", climbing.as_str()), ("etclink", "/etc")]
    {
        symlink(target, lab.path("git/r").join(name)).unwrap();
    }
    lab.commit("r");
    let url = lab.remote("r");
    for subdir in ["absolute", "climbing", "absolute/.", "../../../../outside", "etc/../../../outside"] {
        let built = lab.build(&format!("ADD {url}#main:{subdir} /r"));
        built.refused(3, "there is no directory");
    }
    // A link to `/etc` is the repository's own `etc`.
    let image = lab.image(&format!("ADD {url}#main:etclink /r"));
    assert_eq!(image.paths(), ["r", "r/own"]);
    // The links themselves are copied as links.
    assert_eq!(lab.image(&format!("ADD {url} /r")).entry("r/etclink").link, "/etc");
}

/// CVE-2019-13139: a reference that is an option.
#[test]
fn a_reference_cannot_be_an_option() {
    let Some(lab) = Lab::with_git("a_reference_cannot_be_an_option") else { return };
    lab.repository("r");
    lab.commit("r");
    let url = lab.remote("r");
    let mark = lab.path("mark");
    let payload = format!("--upload-pack=touch${{IFS}}{}", mark.display());
    for reference in [payload.as_str(), "-x", "--exec=x", "a..b", "refs/heads/*", "main^{tree}", "+main:main"]
    {
        let built = lab.run(&["build", "--progress=plain", &format!("{url}#{reference}")]);
        assert_ne!(built.code, 0, "{reference}");
        lab.build(&format!("ADD [\"{url}#{}\", \"/r\"]", reference.replace('$', "\\\\$")))
            .refused(2, "invalid git ref");
    }
    for remote in ["ssh://-oProxyCommand=x/a.git", "git://-x/a", "--upload-pack=x@h:a"] {
        assert_ne!(lab.build(&format!("ADD {remote} /r")).code, 0, "{remote}");
    }
    assert!(!mark.exists() && lab.server.log().is_empty());
}

/// A server's HEAD that is an option for the next git command.
#[test]
fn a_hostile_list_of_references_is_only_data() {
    let Some(lab) = Lab::with_git("a_hostile_list_of_references_is_only_data") else { return };
    let (mark, id) = (lab.path("mark"), "1".repeat(40));
    let lines = format!(
        "--upload-pack=touch {}\tHEAD\n{id}\trefs/heads/--upload-pack=x\n{id}\trefs/heads/main\n",
        mark.display()
    );
    lab.server
        .put("/r.git/info/refs", rbuild_testkit::Page { plain: true, ..rbuild_testkit::Page::new(lines) });
    lab.server.put("/r.git/HEAD", rbuild_testkit::Page::new("ref: refs/heads/--upload-pack=x\n"));
    let url = lab.server.url("/r.git");
    for reference in ["", "#main"] {
        assert_eq!(lab.build(&format!("ADD {url}{reference} /r")).code, 3, "{reference}");
    }
    assert!(!mark.exists());
}

/// CVE-2024-32002 and its kin: a repository that has git run something, or read this machine's files, on checkout.
#[test]
fn checking_out_runs_and_reads_nothing() {
    let Some(lab) = Lab::with_git("checking_out_runs_and_reads_nothing") else { return };
    let mark = lab.path("mark");
    lab.repository("private");
    lab.write("private", "f", "private");
    lab.commit("private");
    lab.repository("r");
    lab.write("r", "f", "one");
    lab.write("r", ".gitattributes", "* filter=evil diff=evil\n");
    lab.write("r", ".gitconfig", &format!("[filter \"evil\"]\n\tsmudge = touch {}\n", mark.display()));
    lab.write("r", "hooks/post-checkout", &format!("#!/bin/sh\ntouch {}\n", mark.display()));
    lab.commit("r");
    // The user's own configuration must not count either.
    let config = format!(
        "[filter \"evil\"]\n\tsmudge = touch {0} && cat\n[core]\n\thooksPath = /evil\n",
        mark.display()
    );
    fs::write(lab.path(".gitconfig"), config).unwrap();
    assert_eq!(lab.image(&format!("ADD {} /r", lab.remote("r"))).text("r/f"), "one");
    assert!(!mark.exists());

    let head = lab.git("private", &["rev-parse", "HEAD"]);
    for (number, url) in [
        format!("file://{}", lab.path("git/private/.git").display()),
        lab.path("git/private/.git").display().to_string(),
        format!("ext::sh -c \"touch% {}\"", mark.display()),
        "-u./payload".to_owned(),
        "ssh://-oProxyCommand=touch/x".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("s{number}");
        lab.repository(&name);
        let modules = format!(
            "[submodule \"x\"]\n\tpath = x\n\turl = {}\n\tupdate = !touch {}\n",
            url.replace('"', "\\\""),
            mark.display()
        );
        lab.write(&name, ".gitmodules", &modules);
        lab.git(&name, &["add", ".gitmodules"]);
        lab.git(&name, &["update-index", "--add", "--cacheinfo", &format!("160000,{head},x")]);
        lab.git(&name, &["commit", "-q", "-m", "x"]);
        let built = lab.build(&format!("ADD {} /r", lab.remote(&name)));
        if number < 3 {
            built.refused(3, "cannot check out the submodules of");
        }
        let private = built.code == 0 && lab.app().has("r/x/f");
        assert!(!private && !mark.exists(), "{url}: {}", built.said);
    }
}

/// A Dockerfile that is a link out of the context that was fetched.
#[test]
fn a_fetched_dockerfile_is_inside_its_context() {
    let Some(lab) = Lab::with_git("a_fetched_dockerfile_is_inside_its_context") else { return };
    fs::write(lab.path("Outside"), "FROM scratch\nLABEL leaked=1\n").unwrap();
    lab.repository("r");
    lab.write("r", "f", "one");
    symlink(lab.path("Outside"), lab.path("git/r/Dockerfile")).unwrap();
    lab.commit("r");
    let url = lab.remote("r");
    lab.run(&["build", "--progress=plain", &url]).refused(2, "failed to read dockerfile");
    let climbing = format!("{}{}", "../".repeat(30), lab.path("Outside").display());
    lab.run(&["build", "--progress=plain", "-f", &climbing, &url]).refused(2, "failed to read dockerfile");
}
