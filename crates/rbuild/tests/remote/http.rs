//! ADD of URLs.

use crate::lab::{Lab, holding};
use rbuild_testkit::Page;
use std::fs;

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn dated(body: &str, etag: &str) -> Page {
    Page::new(body).with("ETag", etag).with("Last-Modified", DATE)
}

fn sha256(lab: &Lab, text: &str) -> String {
    fs::write(lab.path("sum"), text).unwrap();
    let out = std::process::Command::new("sha256sum").arg(lab.path("sum")).output().unwrap();
    format!("sha256:{}", &String::from_utf8(out.stdout).unwrap()[..64])
}

///
#[test]
fn a_115_name_mode_owner_and_time() {
    let lab = Lab::new();
    lab.server.put("/x/file.txt", dated("hello", "\"1\""));
    lab.server.put("/x/od%5bd%2A", Page::new("odd"));
    lab.server.put("/", Page::new("root"));
    let url = lab.server.url("");
    let image = lab.image(&format!(
        "ADD {url}/x/file.txt /dir/\nADD {url}/x/file.txt /renamed\nADD {url}/x/od%5bd%2A {url} /dir/\n\
         ADD --chmod=755 --chown=3:4 {url}/x/file.txt /changed\nADD --link {url}/x/file.txt /linked"
    ));
    for path in ["dir/file.txt", "renamed", "linked"] {
        let file = image.entry(path);
        assert_eq!((file.text(), file.mode, file.owner().as_str()), ("hello", 0o600, "0:0"), "{path}");
        assert_eq!(file.mtime, 784_111_777, "{path}");
    }
    let changed = image.entry("changed");
    assert_eq!((changed.mode, changed.owner().as_str()), (0o755, "3:4"));
    assert_eq!((image.text("dir/od[d*"), image.text("dir/__unnamed__")), ("odd", "root"));
    assert_eq!(image.entry("dir/od[d*").mtime, 0);
    assert_eq!(image.history()[1], format!("ADD {url}/x/file.txt /renamed # buildkit"));
}

///
#[test]
fn a_115_a_file_is_fetched_again_only_when_it_changed() {
    let lab = Lab::new();
    let add = format!("ADD {} /a", lab.server.url("/a"));
    lab.server.put("/a", dated("one", "\"1\""));
    assert_eq!(lab.image(&add).text("a"), "one");
    lab.server.take_log();
    assert!(lab.build(&add).succeeded().all_cached());
    let log = lab.server.take_log();
    assert_eq!(log.iter().map(|seen| seen.status).collect::<Vec<_>>(), [304]);
    assert_eq!(log[0].header("if-none-match"), Some("\"1\""));

    lab.server.put("/a", dated("two", "\"2\""));
    assert_eq!(lab.image(&add).text("a"), "two");

    // A step further on uses the file that is here.
    lab.server.take_log();
    assert_eq!(lab.image(&format!("COPY Dockerfile /\n{add}")).text("a"), "two");
    assert_eq!(lab.server.take_log().iter().map(|seen| seen.status).collect::<Vec<_>>(), [304]);

    // Another tag on the same bytes: asked for again, but nothing is built.
    lab.server.put("/a", dated("two", "\"3\""));
    assert!(lab.build(&add).succeeded().all_cached());
}

///
#[test]
fn a_115_a_server_without_validators_is_asked_each_time() {
    let lab = Lab::new();
    let add = format!("ADD {} /a", lab.server.url("/a"));
    lab.server.put("/a", Page::new("one"));
    lab.build(&add).succeeded();
    assert!(lab.build(&add).succeeded().all_cached());
    lab.server.put("/a", Page::new("two"));
    assert_eq!(lab.image(&add).text("a"), "two");
}

///
#[test]
fn a_116_a_pinned_file_needs_no_request() {
    let lab = Lab::new();
    lab.server.put("/a", dated("one", "\"1\""));
    let (url, sum) = (lab.server.url("/a"), sha256(&lab, "one"));
    let add = format!("ADD --checksum={sum} {url} /a");
    assert_eq!(lab.image(&add).text("a"), "one");
    assert_eq!(lab.server.take_log().len(), 1);
    lab.server.put("/a", Page::status(500));
    assert!(lab.build(&add).succeeded().all_cached());
    let image = lab.image(&format!("COPY Dockerfile /\n{add}"));
    assert_eq!((image.text("a"), image.entry("a").mtime), ("one", 784_111_777));
    assert_eq!(lab.server.take_log().len(), 0);
}

///
#[test]
fn a_116_a_wrong_file_is_refused() {
    let lab = Lab::new();
    lab.server.put("/a", Page::new("evil"));
    let (url, sum) = (lab.server.url("/a"), sha256(&lab, "good"));
    let add = format!("ADD --checksum={sum} {url} /a");
    lab.build(&add).refused(3, "digest mismatch");
    lab.server.put("/a", Page::new("good"));
    assert_eq!(lab.image(&add).text("a"), "good");
}

///
#[test]
fn a_113_archives_are_unpacked_when_asked() {
    let lab = Lab::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o640);
    tar.append_data(&mut header, "in/f", &b"hi"[..]).unwrap();
    lab.server.put("/a.tar", Page::new(tar.into_inner().unwrap()));
    lab.server.put("/b.txt", Page::new("text"));
    let url = lab.server.url("");
    let image = lab.image(&format!(
        "ADD {url}/a.tar /kept/\nADD --unpack=false {url}/a.tar /kept2/\nADD --unpack {url}/a.tar {url}/b.txt /got/"
    ));
    assert!(image.has("kept/a.tar") && image.has("kept2/a.tar") && !image.has("got/a.tar"));
    assert_eq!((image.text("got/in/f"), image.text("got/b.txt")), ("hi", "text"));
}

#[test]
fn failures_name_the_url_and_the_line() {
    let lab = Lab::new();
    let gone = lab.build(&format!("ADD {} /a", lab.server.url("/none")));
    gone.refused(3, "/none: the server answered 404");
    gone.refused(3, "Dockerfile:2");
    lab.server.put("/away", Page::status(302).with("Location", "file:///etc/passwd"));
    lab.build(&format!("ADD {} /a", lab.server.url("/away"))).refused(3, "neither http nor https");
    lab.build("ADD http://127.0.0.1:1/a /a").refused(3, "127.0.0.1:1");
    lab.build(&format!("COPY {} /a", lab.server.url("/a"))).refused(2, "source can't be a URL for COPY");
    lab.build("ADD --checksum=md5:abc http://127.0.0.1:1/a /a").refused(2, "unsupported digest algorithm");
}

#[test]
fn credentials_stay_out_of_everything() {
    let lab = Lab::new();
    lab.server.put("/a", dated("one", "\"1\""));
    let url = lab.server.url("/a").replace("http://", "http://somebody:topsecret@");
    let built = lab.build(&format!("ADD {url} /a"));
    assert!(!built.succeeded().said.contains("topsecret"), "{}", built.said);
    assert!(built.said.contains("http://xxxxx:xxxxx@127.0.0.1"), "{}", built.said);
    let sent = lab.server.take_log()[0].header("authorization").map(str::to_owned);
    assert_eq!(sent.as_deref(), Some("Basic c29tZWJvZHk6dG9wc2VjcmV0"));
    assert_eq!(holding(&lab.store(), "topsecret"), Vec::<std::path::PathBuf>::new());

    let failed = lab.build(&format!("ADD {}none /a", url));
    failed.refused(3, "404");
    assert!(!failed.said.contains("topsecret"), "{}", failed.said);
}

///
#[test]
fn a_118_secrets_authenticate() {
    let lab = Lab::new();
    lab.server.put("/a", Page::new("one"));
    fs::write(lab.path("token"), "sesame\n").unwrap();
    let add = format!("ADD {} /a", lab.server.url("/a"));
    for (id, header) in
        [("HTTP_AUTH_TOKEN_127.0.0.1", "Bearer sesame"), ("HTTP_AUTH_HEADER_127.0.0.1", "sesame")]
    {
        lab.server.take_log();
        let secret = format!("id={id},src=token");
        lab.build_with(&add, &["--secret", &secret]).succeeded();
        assert_eq!(lab.server.take_log()[0].header("authorization"), Some(header));
        assert_eq!(holding(&lab.store(), "sesame"), Vec::<std::path::PathBuf>::new());
    }
    lab.build_with(&add, &["--secret", "id=HTTP_AUTH_TOKEN_example.com,src=token"]).succeeded();
    assert_eq!(lab.server.take_log()[0].header("authorization"), None);
}

#[test]
fn many_steps_share_one_file() {
    let lab = Lab::new();
    lab.server.put("/a", dated("one", "\"1\""));
    let url = lab.server.url("/a");
    let lines: String = (0..5).map(|n| format!("ADD {url} /{n}\n")).collect();
    let image = lab.image(&lines);
    assert!((0..5).all(|n| image.text(&n.to_string()) == "one"));
    assert_eq!(lab.server.log().len(), 1);
}

#[test]
fn prune_forgets_what_was_fetched() {
    let lab = Lab::new();
    lab.server.put("/a", dated("one", "\"1\""));
    let add = format!("ADD {} /a", lab.server.url("/a"));
    lab.build(&add).succeeded();
    lab.run(&["prune", "--all", "--force"]).succeeded();
    lab.server.take_log();
    assert_eq!(lab.image(&add).text("a"), "one");
    assert_eq!(lab.server.take_log()[0].header("if-none-match"), None);
}
