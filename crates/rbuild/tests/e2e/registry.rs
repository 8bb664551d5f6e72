//! Pulling from and pushing to registries on loopback.

use crate::context::{TestContext, installed, run, skip};
use crate::image::Image;
use rbuild_testkit::{
    Action, CertAuthority, DebianOptions, DebianRegistry, Fault, Options, TestRegistry, docker_config,
};
use serde_json::Value;
use std::process::Command;
use std::sync::Arc;

const APP: &str = "FROM base\nRUN echo content > /x\nCOPY Dockerfile /\nCMD [\"cat\", \"/x\"]\n";

fn config_dir(context: &TestContext) -> std::path::PathBuf {
    let dir = context.path("home/.docker");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn push_to_a_real_registry_with_tls_and_a_password() {
    const TEST: &str = "push_to_a_real_registry_with_tls_and_a_password";
    let ca = Arc::new(CertAuthority::new());
    let basic = Some(("jo".to_owned(), "secret word".to_owned()));
    let Some(registry) = DebianRegistry::start(TEST, &DebianOptions { tls: Some(Arc::clone(&ca)), basic })
    else {
        return;
    };
    let context = TestContext::of(APP);
    let host = registry.host();
    let name = format!("{host}/team/app:1.0");
    context.build(&["-t", &name, "--push"]).fails(3, &[&host]);
    ca.install(&context.path("home/.config/docker/certs.d"), &host);
    context.build(&["-t", &name, "--push"]).fails(3, &[&host]);
    let config = config_dir(&context).join("config.json");
    std::fs::write(&config, docker_config(&host, "jo", "wrong word")).unwrap();
    let refused = context.build(&["-t", &name, "--push"]).fails(3, &[&host]);
    assert!(!refused.stderr.contains("wrong word"), "{}", refused.stderr);
    std::fs::write(&config, docker_config(&host, "jo", "secret word")).unwrap();
    let other = format!("{host}/other/app:2.0");
    context.build(&["-t", &name, "-t", &other, "--push", "--metadata-file", "meta.json"]).ok();
    let unreachable = context.build(&["-t", &name, "-t", "127.0.0.1:1/elsewhere", "--push"]);
    unreachable.fails(3, &["failed to push 127.0.0.1:1/elsewhere"]);

    // A fresh store builds on what was pushed.
    std::fs::remove_dir_all(context.store()).unwrap();
    context
        .dockerfile(&format!("FROM {name}\nRUN test \"$(cat /x)\" = content\n"))
        .build(&["-t", "child"])
        .ok();
    assert_eq!(Image::of(&context, "child:latest").layers.len(), 4);

    if !installed("skopeo") {
        return skip(TEST, "skopeo is not installed");
    }
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--src-creds=jo:secret word", "--src-cert-dir"]);
    skopeo.arg(context.path("home/.config/docker/certs.d").join(&host));
    skopeo.arg(format!("docker://{name}")).arg(format!("oci:{}:copied", context.path("copied").display()));
    run(skopeo, b"").ok();
    let meta: Value = serde_json::from_slice(&std::fs::read(context.path("meta.json")).unwrap()).unwrap();
    assert_eq!(Image::only(&context.path("copied")).digest, meta["containerimage.digest"]);
}

/// An image of one layer with `/x`, in a registry.
fn pushed(registry: &TestRegistry) -> (TestContext, String) {
    let context = TestContext::of(APP);
    let name = format!("{}/team/app:1.0", registry.host());
    context.build(&["-t", &name, "--push"]).ok();
    (context, name)
}

#[test]
fn a_second_push_uploads_no_blob() {
    let registry = TestRegistry::start(Options::default());
    let (context, name) = pushed(&registry);
    let uploads = registry.count("POST", "/blobs/uploads");
    assert_eq!(uploads, 4, "three layers and a config: {:?}", registry.log());
    registry.clear_log();
    context.build(&["-t", &name, "--push"]).ok();
    assert_eq!(registry.count("POST", "/blobs/uploads"), 0, "{:?}", registry.log());
    // Another name in the same repository uploads nothing either, and both tags are one manifest.
    let other = name.replace(":1.0", ":2.0");
    context.build(&["-t", &name, "-t", &other, "--push"]).ok();
    assert_eq!(registry.count("POST", "/blobs/uploads"), 0, "{:?}", registry.log());
    assert_eq!(registry.manifest("team/app", "1.0"), registry.manifest("team/app", "2.0"));
}

#[test]
fn a_failed_build_pushes_no_manifest_and_a_failed_push_keeps_no_name() {
    let registry = TestRegistry::start(Options::default());
    let context = TestContext::of("FROM base\nRUN echo x > /x\nRUN exit 4\n");
    let name = format!("{}/team/app:1.0", registry.host());
    context.build(&["-t", &name, "--push"]).fails(1, &["exit code: 4"]);
    assert_eq!(registry.count("PUT", "/manifests/"), 0);
    registry.fault(Fault::new("/manifests/", Action::Status(403, vec![], "denied".into())).times(1000));
    context.dockerfile(APP).build(&["-t", &name, "--push"]).fails(3, &[&name]);
}

#[test]
fn bases_are_pulled_only_when_needed() {
    let registry = TestRegistry::start(Options::default());
    let (context, name) = pushed(&registry);
    std::fs::remove_dir_all(context.store()).unwrap();
    registry.clear_log();
    // Nothing reads the base's files: its manifest and config are enough until the image is exported.
    context.dockerfile(&format!("FROM {name}\nLABEL a=b\n")).build(&["-o", "type=cacheonly"]).ok();
    assert_eq!(registry.count("GET", "/blobs/"), 1, "the config: {:?}", registry.log());
    let digest = registry.log().iter().find(|entry| format!("{entry:?}").contains("manifests")).map(|_| ());
    assert!(digest.is_some());
    registry.clear_log();
    context.dockerfile(&format!("FROM {name}\nRUN cat /x\n")).build(&["-t", "x"]).ok();
    assert!(registry.count("GET", "/blobs/") >= 3, "{:?}", registry.log());
    registry.clear_log();
    context.build(&["-t", "x"]).ok();
    assert_eq!(registry.count("GET", "/blobs/"), 0, "{:?}", registry.log());
}

#[test]
fn a_digest_pinned_no_op_build_makes_no_request() {
    let registry = TestRegistry::start(Options::default());
    let (context, name) = pushed(&registry);
    let manifest = registry.manifest("team/app", "1.0").unwrap().1;
    let pinned = format!("{name}@{}", rbuild_oci::Digest::of(&manifest));
    std::fs::remove_dir_all(context.store()).unwrap();
    context.dockerfile(&format!("FROM {pinned}\nRUN cat /x\n")).build(&["-t", "x"]).ok();
    drop(registry);
    assert_eq!(context.build(&["-t", "x"]).ok().steps().0, 0);
}

#[test]
fn lies_of_a_registry_are_found_and_nothing_is_kept() {
    // At the same time, because each waits between its attempts.
    std::thread::scope(|scope| {
        scope.spawn(|| refused_pull(Action::Corrupt(20), "digest mismatch"));
        scope.spawn(|| refused_pull(Action::Short(0), "truncated"));
        scope.spawn(|| refused_pull(Action::Append(vec![0; 20]), "larger than allowed"));
        scope.spawn(|| refused_pull(Action::CutAfter(0), "cannot reach"));
    });
}

fn refused_pull(action: Action, words: &str) {
    let registry = TestRegistry::start(Options::default());
    let (context, name) = pushed(&registry);
    std::fs::remove_dir_all(context.store()).unwrap();
    registry.fault(Fault::new("/blobs/", action).method("GET").after(1).times(10_000));
    context.dockerfile(&format!("FROM {name}\nRUN cat /x\n"));
    context.build(&["-t", "x"]).fails(3, &[&registry.host(), words]);
    assert_eq!(context.rbuild(&["images", "-q"]).ok().stdout, "", "{words}");
    context.assert_nothing_left();
}

#[test]
fn a_hiccup_of_a_registry_is_retried() {
    let registry = TestRegistry::start(Options::default());
    let (context, name) = pushed(&registry);
    std::fs::remove_dir_all(context.store()).unwrap();
    registry.fault(Fault::new("/blobs/", Action::CutAfter(10)).method("GET").after(1));
    registry.fault(Fault::new("/manifests/", Action::Status(503, vec![], String::new())));
    context.dockerfile(&format!("FROM {name}\nRUN cat /x\n")).build(&["-t", "x"]).ok();
    Image::of(&context, "x:latest");
}

#[test]
fn what_is_not_there() {
    let registry = TestRegistry::start(Options::default());
    let context = TestContext::of(&format!("FROM {}/none:1\nRUN true\n", registry.host()));
    context.build(&[""; 0]).fails(3, &["Dockerfile:1", "none:1"]);
}
