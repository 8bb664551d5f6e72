//! SOURCE_DATE_EPOCH that names something with a time (A-056).

use crate::lab::{Built, Lab};
use rbuild_testkit::Page;
use std::fs;

const LAST_MODIFIED: (&str, &str) = ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
const MODIFIED: i64 = 784_111_777;
/// What `Lab::git` dates commits.
const COMMITTED: i64 = 1_600_000_000;

impl Lab {
    /// What a build would take for SOURCE_DATE_EPOCH.
    fn plan(&self, dockerfile: &str, args: &[&str]) -> Built {
        fs::write(self.path("context/Dockerfile"), dockerfile).unwrap();
        self.run(&[&["--call=plan,format=json"], args].concat())
    }

    #[track_caller]
    fn epoch(&self, dockerfile: &str, args: &[&str], expected: i64) {
        let planned = self.plan(dockerfile, args);
        let line = format!("\"source_date_epoch\": {expected},");
        assert!(planned.succeeded().said.contains(&line), "no {line}: {}", planned.said);
    }
}

fn archive(newest: u64) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let text = "ARG SOURCE_DATE_EPOCH=context\nFROM scratch\nCOPY a /\n";
    for (name, time) in [("Dockerfile", newest - 5), ("a", newest), ("b", newest - 7)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(time);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn a_056_the_time_of_a_context() {
    let Some(lab) = Lab::with_git("a_056_the_time_of_a_context") else { return };
    lab.repository("r");
    lab.write("r", "Dockerfile", "ARG SOURCE_DATE_EPOCH=context\nFROM scratch\nCOPY Dockerfile /\n");
    lab.commit("r");
    let url = lab.remote("r");
    lab.epoch("", &[&url], COMMITTED);
    lab.server.put("/c.tar", Page::new(archive(1_000_000)).with(LAST_MODIFIED.0, LAST_MODIFIED.1));
    lab.epoch("", &[&lab.server.url("/c.tar")], MODIFIED);
    lab.server.put("/d.tar", Page::new(archive(1_000_000)));
    lab.epoch("", &[&lab.server.url("/d.tar")], 1_000_000);
    let text = "ARG SOURCE_DATE_EPOCH=context\nFROM scratch\nLABEL a=b\n";
    lab.server.put("/D", Page::new(text).with(LAST_MODIFIED.0, LAST_MODIFIED.1));
    lab.epoch("", &[&lab.server.url("/D")], MODIFIED);

    // The same of a named one, which may be named on the command line, too.
    let named = format!("src={url}#main");
    let args = ["--build-context", named.as_str(), "context"];
    lab.epoch("ARG SOURCE_DATE_EPOCH=src\nFROM scratch\nCOPY --from=src / /\n", &args, COMMITTED);
    let given = [&["--build-arg", "SOURCE_DATE_EPOCH=src"], &args[..]].concat();
    lab.epoch("FROM scratch\nCOPY --from=src / /\n", &given, COMMITTED);
    // A directory has no time.
    let planned = lab.plan(text, &["context"]);
    assert!(planned.succeeded().said.contains("\"source_date_epoch\": null"), "{}", planned.said);
}

#[test]
fn a_056_the_time_of_a_stage() {
    let Some(lab) = Lab::with_git("a_056_the_time_of_a_stage") else { return };
    lab.repository("r");
    lab.write("r", "f", "x");
    let commit = lab.commit("r");
    lab.server.put("/f", Page::new("x").with(LAST_MODIFIED.0, LAST_MODIFIED.1));
    lab.server.put("/c.tar", Page::new(archive(2_000_000)));
    let of = |stage: &str| {
        format!(
            "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\n{stage}\nFROM scratch\nCOPY --from=src / /\n"
        )
    };
    for (source, expected) in [
        (lab.server.url("/f"), MODIFIED),
        (lab.server.url("/c.tar"), 2_000_000),
        (format!("{}#main", lab.remote("r")), COMMITTED),
        (format!("{}#{commit}", lab.remote("r")), COMMITTED),
    ] {
        lab.epoch(&of(&format!("ADD {source} /x/")), &["context"], expected);
    }
    for (stage, reason) in [
        ("COPY Dockerfile /", "does not meet source-only requirements: unsupported COPY instruction"),
        ("ADD Dockerfile /", "source must be a single HTTP(S) or Git ADD"),
        ("ADD https://a.example/ https://b.example/ /x/", "must contain exactly one remote ADD source"),
        ("ADD https://a.example/ /x\nADD https://b.example/ /y", "must contain exactly one remote ADD"),
    ] {
        let planned = lab.plan(&of(stage), &["context"]);
        planned.refused(2, &format!("SOURCE_DATE_EPOCH stage {reason}"));
        planned.refused(2, "Dockerfile:2:1");
    }
    let invalid = lab.plan("FROM scratch\n", &["--build-arg", "SOURCE_DATE_EPOCH=abc", "context"]);
    invalid.refused(2, "invalid SOURCE_DATE_EPOCH: abc");
    let invalid = lab.plan("ARG A=1\nARG SOURCE_DATE_EPOCH=abc\nFROM scratch\n", &["context"]);
    invalid.refused(2, "Dockerfile:2:23");
}
