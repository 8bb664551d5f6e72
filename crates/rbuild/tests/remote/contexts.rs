//! Contexts and Dockerfiles that are fetched (D-002, D-003).

use crate::lab::Lab;
use rbuild_testkit::Page;
use std::fs;

const DOCKERFILE: &str = "FROM scratch\nCOPY . /ctx/\n";

fn built(lab: &Lab, args: &[&str]) -> crate::support::Image {
    lab.run(&[&["build", "--progress=plain", "-t", "app"], args].concat()).succeeded();
    lab.app()
}

/// D-003
#[test]
fn d_003_a_repository_is_a_context() {
    let Some(lab) = Lab::with_git("d_003_a_repository_is_a_context") else { return };
    lab.repository("r");
    lab.write("r", "Dockerfile", DOCKERFILE);
    lab.write("r", ".dockerignore", "ignored\n");
    lab.write("r", "ignored", "kept all the same");
    lab.write("r", "sub/Dockerfile", DOCKERFILE);
    lab.write("r", "sub/Other", "FROM scratch\nCOPY deep /deep\n");
    lab.write("r", "sub/deep/f", "f");
    let commit = lab.commit("r");
    let url = lab.remote("r");
    let image = built(&lab, &[&url]);
    assert!(image.has("ctx/sub/deep/f") && !image.paths().iter().any(|path| path.ends_with(".git")));
    // A-128
    assert_eq!(image.text("ctx/ignored"), "kept all the same");
    assert!(built(&lab, &[&format!("{url}#main:sub")]).has("ctx/deep/f"));
    assert!(built(&lab, &["-f", "Other", &format!("{url}#main:sub")]).has("deep/f"));
    assert!(built(&lab, &["-f", "Other", &format!("{url}?branch=main&subdir=sub")]).has("deep/f"));

    // A-055
    let keep = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &url];
    assert!(built(&lab, &keep).has("ctx/.git/HEAD"));
    assert!(!built(&lab, &["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=0", &url]).has("ctx/.git"));

    let pinned = format!("{url}#{commit}");
    built(&lab, &[&pinned]);
    lab.server.take_log();
    let again = lab.run(&["build", "--progress=plain", &pinned]);
    assert!(again.succeeded().all_cached(), "{}", again.said);
    assert_eq!(lab.server.take_log().len(), 0, "pinned and in the store");

    lab.run(&["build", &format!("{url}#none")]).refused(3, "repository does not contain ref none");
    lab.run(&["build", &format!("{url}?x=y")]).refused(2, "unexpected query \"x\"");
    lab.run(&["check", &url]).succeeded();
}

/// D-003
#[test]
fn d_003_text_is_a_dockerfile_and_an_archive_is_a_context() {
    let lab = Lab::new();
    lab.server.put("/Dockerfile", Page::new("FROM scratch\nLABEL a=b\n").with("ETag", "\"1\""));
    let url = lab.server.url("/Dockerfile");
    assert_eq!(built(&lab, &[&url]).config()["Labels"]["a"], "b");
    lab.run(&["build", "-f", "x", &url]).refused(2, "ambiguous Dockerfile source");
    lab.server.put("/bad", Page::new("FORM scratch\n"));
    lab.run(&["build", &lab.server.url("/bad")]).refused(2, "/bad");

    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in
        [("Dockerfile", DOCKERFILE), ("sub/Other", "FROM scratch\nLABEL o=1\n"), (".dockerignore", "*\n")]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &tar).unwrap();
    lab.server.put("/c.tar", Page::new(tar));
    lab.server.put("/c", Page::new(gzip.finish().unwrap()));
    for path in ["/c.tar", "/c"] {
        assert!(built(&lab, &[&lab.server.url(path)]).has("ctx/sub/Other"));
        assert_eq!(built(&lab, &["-f", "sub/Other", &lab.server.url(path)]).config()["Labels"]["o"], "1");
    }
    lab.run(&["build", &lab.server.url("/none")]).refused(3, "404");
}

/// D-002
#[test]
fn d_002_the_dockerfile_is_behind_a_url() {
    let lab = Lab::new();
    lab.server.put("/D", Page::new(DOCKERFILE));
    fs::write(lab.path("context/f"), "f").unwrap();
    assert!(built(&lab, &["-f", &lab.server.url("/D"), "context"]).has("ctx/f"));
}

#[test]
fn named_contexts_are_fetched() {
    let Some(lab) = Lab::with_git("named_contexts_are_fetched") else { return };
    lab.repository("r");
    lab.write("r", "sub/f", "from git");
    lab.write("r", ".dockerignore", "*\n");
    lab.commit("r");
    lab.server
        .put("/x/one.txt", Page::new("from the web").with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"));
    let (git, web) = (format!("g={}#main", lab.remote("r")), format!("w={}", lab.server.url("/x/one.txt")));
    let args = ["--build-context", git.as_str(), "--build-context", web.as_str()];
    lab.build_with("COPY --from=g / /g/\nCOPY --from=w one.txt /w", &args).succeeded();
    let image = lab.app();
    assert_eq!((image.text("g/sub/f"), image.text("w")), ("from git", "from the web"));
    assert_eq!((image.entry("w").mode, image.entry("w").mtime), (0o600, 784_111_777));
    lab.server.take_log();
    let again = lab.build_with("COPY --from=g / /g/\nCOPY --from=w one.txt /w", &args);
    assert!(again.succeeded().all_cached(), "{}", again.said);
}
