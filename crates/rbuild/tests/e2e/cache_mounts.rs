//! `--cache-mounts-to`, `--cache-mounts-from` and `rbuild cache`: cache mounts that survive the machine.

use crate::context::{Run, TestContext, debian, installed, noise, skip};
use rbuild_oci::Digest;
use rbuild_testkit::{Action, DebianOptions, DebianRegistry, Fault, FileServer, Options, Page, TestRegistry};
use serde_json::{Value, json};

/// Packages of [`downloading`].
const PACKAGES: usize = 4;

/// The machine is replaced: the store is empty.
fn cold(context: &TestContext) {
    std::fs::remove_dir_all(context.store()).unwrap();
}

fn warnings(run: &Run) -> Vec<&str> {
    run.stderr.lines().filter(|line| line.starts_with("WARN")).collect()
}

/// A server of packages, and a step that downloads those that its cache mount has not.
fn downloading(web: &FileServer) -> TestContext {
    for package in 0..PACKAGES {
        web.put(&format!("/package-{package}"), Page::new(noise(300_000 + package)));
    }
    let context = TestContext::new();
    step(web, &context, "first");
    context
}

/// The same step under another cache key.
fn step(web: &FileServer, context: &TestContext, name: &str) {
    let url = web.url("");
    context.dockerfile(&format!(
        "FROM base\nRUN --mount=type=cache,target=/packages,id=packages for p in 0 1 2 3; do \
         test -e /packages/$p || {{ wget -q -O /packages/tmp {url}/package-$p && mv /packages/tmp /packages/$p; }} || exit 1; \
         done; echo {name}; cat /packages/? | wc -c\n"
    ));
}

fn filled(context: &TestContext) -> TestRegistry {
    let registry = TestRegistry::start(Options::default());
    context.build(&["--cache-mounts-to", &place(&registry)]).ok();
    registry
}

fn place(registry: &TestRegistry) -> String {
    format!("{}/team/app:mounts", registry.host())
}

/// Bytes of blobs that were sent, and how many.
fn uploads(registry: &TestRegistry) -> (usize, u64) {
    let log = registry.log();
    let sent = log.iter().filter(|entry| entry.received > 0 && entry.target.contains("/blobs/"));
    sent.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.received))
}

#[test]
fn an_empty_store_downloads_nothing_again() {
    const TEST: &str = "an_empty_store_downloads_nothing_again";
    let Some(registry) = DebianRegistry::start(TEST, &DebianOptions::default()) else { return };
    let web = FileServer::start();
    let context = downloading(&web);
    let mounts = format!("{}/team/app:mounts", registry.host());
    let both = ["--cache-mounts-from", &mounts, "--cache-mounts-to", &mounts];
    let first = context.build(&both).ok();
    assert_eq!((web.take_log().len(), warnings(&first)), (PACKAGES, vec![]), "{}", first.stderr);
    cold(&context);
    step(&web, &context, "second");
    let second = context.build(&both).ok();
    let counted = web.take_log().len();
    println!("downloads: {PACKAGES} on the first machine, {counted} on the second");
    assert_eq!((counted, warnings(&second)), (0, vec![]), "{}", second.stderr);
    assert!(second.stderr.contains("restored"), "{}", second.stderr);
    assert!(second.stderr.contains("nothing to send"), "{}", second.stderr);
    context.assert_nothing_left();
}

#[test]
fn apt_downloads_nothing_again() {
    const TEST: &str = "apt_downloads_nothing_again";
    if !installed("mmdebstrap") {
        return skip(TEST, "mmdebstrap is not installed");
    }
    let context = TestContext::with_base(debian());
    let apt = |name: &str| {
        context.dockerfile(&format!(
            "FROM base\nRUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
             --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
             echo {name}; rm -f /etc/apt/apt.conf.d/docker-clean; \
             ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1 || apt-get update -q; \
             apt-get install -q -y --no-install-recommends tree\n"
        ));
    };
    let layout = format!("type=local,dest={}", context.path("mounts").display());
    let from = format!("type=local,src={}", context.path("mounts").display());
    apt("first");
    let first = context.build(&["--cache-mounts-to", &layout]).ok();
    assert!(first.stderr.contains("Get:1 "), "{}", first.stderr);
    cold(&context);
    apt("second");
    let second = context.build(&["--cache-mounts-from", &from]).ok();
    assert!(second.stderr.contains("Need to get 0 B/"), "{}", second.stderr);
    assert!(!second.stderr.contains("Get:1 "), "{}", second.stderr);
}

#[test]
fn nothing_is_asked_when_no_step_with_a_mount_is_executed() {
    let web = FileServer::start();
    let context = downloading(&web);
    let registry = filled(&context);
    registry.clear_log();
    let mounts = place(&registry);
    let both = ["--cache-mounts-from", &mounts, "--cache-mounts-to", &mounts];
    context.build(&both).ok();
    assert!(registry.log().is_empty(), "cached: {:#?}", registry.log());
    cold(&context);
    context.dockerfile("FROM base\nRUN echo no mount\n");
    context.build(&both).ok();
    assert!(registry.log().is_empty(), "no mount: {:#?}", registry.log());
    // A mount that the store has is not asked for.
    step(&web, &context, "fill");
    context.build(&[""; 0]).ok();
    step(&web, &context, "again");
    context.build(&["--cache-mounts-from", &mounts]).ok();
    assert!(registry.log().is_empty(), "not new: {:#?}", registry.log());
}

#[test]
fn no_cache_restores_nothing() {
    let web = FileServer::start();
    let context = downloading(&web);
    let registry = filled(&context);
    cold(&context);
    web.take_log();
    registry.clear_log();
    context.build(&["--no-cache", "--cache-mounts-from", &place(&registry)]).ok();
    assert_eq!((web.take_log().len(), registry.log().len()), (PACKAGES, 0));
}

#[test]
fn only_what_changed_is_sent() {
    let registry = TestRegistry::start(Options::default());
    let context = TestContext::new();
    let run = |name: &str, change: &str| {
        context.dockerfile(&format!(
            "FROM base\nRUN --mount=type=cache,target=/c,id=big echo {name}; \
             test -e /c/00 || for f in 0 1 2 3 4 5 6 7 8 9; do dd if=/dev/urandom of=/c/0$f bs=1048576 count=2 2>/dev/null; done; {change}\n"
        ));
        registry.clear_log();
        let run = context.build(&["--cache-mounts-to", &place(&registry)]).ok();
        assert_eq!(warnings(&run), Vec::<&str>::new());
        uploads(&registry)
    };
    let (count, bytes) = run("first", "true");
    assert!(bytes > 20 << 20, "{count} {bytes}");
    let unchanged = run("unchanged", "true");
    assert_eq!((unchanged, registry.count("PUT", "/")), ((0, 0), 0), "{:#?}", registry.log());
    assert_eq!(registry.count("HEAD", "/blobs/"), 0, "nothing is probed");
    println!("20 MiB mount: {count} blobs, {bytes} bytes; unchanged: {} requests", registry.log().len());
    let (count, bytes) = run("changed", "dd if=/dev/urandom of=/c/05 bs=1048576 count=2 2>/dev/null");
    println!("one file of 2 MiB changed: {count} blobs with the config, {bytes} bytes");
    assert!((2 << 20..12 << 20).contains(&bytes), "{count} {bytes}");
}

#[test]
fn too_large_mounts_are_left_out() {
    let registry = TestRegistry::start(Options::default());
    let context = TestContext::of(
        "FROM base\nRUN --mount=type=cache,target=/small echo x >/small/f\n\
         RUN --mount=type=cache,target=/large dd if=/dev/urandom of=/large/f bs=1024 count=3000\n",
    );
    let to = format!("type=registry,ref={},max-size=1MB", place(&registry));
    let run = context.build(&["--cache-mounts-to", &to]).ok();
    assert!(run.stderr.contains("left out: /large: it has 3072000 bytes"), "{}", run.stderr);
    assert_eq!(ids(&registry), ["/small"]);
    // And what is too large to be wanted is not fetched.
    context.build(&["--no-cache", "--cache-mounts-to", &place(&registry)]).ok();
    assert_eq!(ids(&registry).len(), 2);
    cold(&context);
    registry.clear_log();
    let from = format!("type=registry,ref={},max-size=1MB", place(&registry));
    let run = context.build(&["--cache-mounts-from", &from]).ok();
    assert_eq!(warnings(&run).len(), 1, "{}", run.stderr);
    assert!(warnings(&run)[0].contains("max-size"), "{}", run.stderr);
}

fn config(registry: &TestRegistry) -> Value {
    let manifest: Value =
        serde_json::from_slice(&registry.manifest("team/app", "mounts").unwrap().1).unwrap();
    let config: Digest = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
    serde_json::from_slice(&registry.blob("team/app", &config).unwrap()).unwrap()
}

fn ids(registry: &TestRegistry) -> Vec<String> {
    let config = config(registry);
    let mounts = config["mounts"].as_array().unwrap().iter();
    let mut ids: Vec<String> = mounts.map(|mount| mount["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[test]
fn a_dead_registry_costs_one_warning() {
    let context = TestContext::of("FROM base\nRUN --mount=type=cache,target=/c echo x >/c/f\n");
    let dead = "127.0.0.1:1/team/app:mounts";
    let run = context.build(&["-t", "app", "--cache-mounts-from", dead, "--cache-mounts-to", dead]).ok();
    assert_eq!(warnings(&run).len(), 1, "{}", run.stderr);
    let strict = format!("type=registry,ref={dead},ignore-error=false");
    let failed = context.build(&["-t", "app2", "--no-cache", "--cache-mounts-to", &strict]);
    failed.fails(3, &["exporting cache mounts to 127.0.0.1:1/team/app:mounts"]);
    assert!(context.rbuild(&["images"]).ok().stdout.contains("app2"), "the image is there");
    context.rbuild(&["cache", "export", "--to", dead]).fails(3, &["exporting cache mounts"]);
    context.rbuild(&["cache", "import", "--from", dead]).fails(3, &["importing cache mounts"]);
}

#[test]
fn the_budget_ends_an_export() {
    let registry = TestRegistry::start(Options::default());
    registry
        .fault(Fault::new("/blobs/uploads", Action::Delay(std::time::Duration::from_secs(60))).times(1000));
    let context = TestContext::of("FROM base\nRUN --mount=type=cache,target=/c echo x >/c/f\n");
    let mounts = place(&registry);
    let run = context.build(&["--cache-mounts-to", &mounts, "--cache-export-budget", "700ms"]).ok();
    assert_eq!(warnings(&run).len(), 1, "{}", run.stderr);
    assert!(warnings(&run)[0].contains("--cache-export-budget"), "{}", run.stderr);
    context.assert_nothing_left();
}

#[test]
fn an_image_is_not_overwritten() {
    let registry = TestRegistry::start(Options::default());
    let image = json!({ "schemaVersion": 2, "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": Digest::of("x"), "size": 1 }, "layers": [] });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    registry.put_manifest("team/app", "mounts", kind, image.to_string());
    let before = registry.manifest("team/app", "mounts");
    let context = TestContext::of("FROM base\nRUN --mount=type=cache,target=/c echo x >/c/f\n");
    let run = context.build(&["--cache-mounts-to", &place(&registry)]).ok();
    assert!(warnings(&run)[0].contains("a tag of their own"), "{}", run.stderr);
    assert_eq!(registry.manifest("team/app", "mounts"), before);
}

#[test]
fn private_mounts_export_their_first_directory() {
    let registry = TestRegistry::start(Options::default());
    let text = |check: &str| {
        format!(
            "FROM base\nRUN --mount=type=cache,target=/c,id=own,sharing=private {check}\n\
                 RUN --mount=type=cache,target=/l,id=one,sharing=locked {check}\n"
        )
    };
    let context = TestContext::of(&text("echo kept >$(ls -d /c /l 2>/dev/null | head -1)/f"));
    context.build(&["--cache-mounts-to", &place(&registry)]).ok();
    assert_eq!(ids(&registry), ["one", "own"]);
    cold(&context);
    context.dockerfile(&text("grep kept $(ls -d /c /l 2>/dev/null | head -1)/f"));
    context.build(&["--cache-mounts-from", &place(&registry)]).ok();
}

#[test]
fn nothing_but_the_mounts_is_exported() {
    const SECRET: &str = "hunter2-hunter2-hunter2";
    let context = TestContext::of(
        "FROM base\nRUN --mount=type=cache,target=/c --mount=type=secret,id=key,target=/c/key \
         --mount=type=tmpfs,target=/c/tmp \
         test $(cat /c/key | wc -c) -gt 10 && cp /c/key /c/tmp/copy && echo kept >/c/file\n",
    );
    std::fs::write(context.path("key"), SECRET).unwrap();
    let secret = format!("id=key,src={}", context.path("key").display());
    let layout = context.path("layout");
    let to = format!("type=local,dest={}", layout.display());
    context.build(&["--secret", &secret, "--cache-mounts-to", &to]).ok();
    let back = TestContext::new();
    back.rbuild(&["cache", "import", "--from", &format!("type=local,src={}", layout.display())]).ok();
    let mounts = back.rbuild(&["cache", "ls", "--format", "json"]).ok().stdout;
    let mount: Value = serde_json::from_str(mounts.trim()).unwrap();
    let path = std::path::Path::new(mount["Path"].as_str().unwrap()).to_owned();
    assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "kept\n");
    for name in ["key", "tmp/copy"] {
        let content = std::fs::read(path.join(name)).unwrap_or_default();
        assert!(content.is_empty(), "{name}: what was mounted there is not exported");
    }
}

#[test]
fn hostile_mounts_do_no_harm() {
    let web = FileServer::start();
    let context = downloading(&web);
    let registry = filled(&context);
    let good = config(&registry);
    let change = |path: &str, value: Value| {
        let mut config = good.clone();
        *config.pointer_mut(path).unwrap() = value;
        config.to_string().into_bytes()
    };
    let outside = context.path("outside");
    let evil = |name: &str, link: Option<&str>| {
        let archive = archive(name, link);
        let blob = zstd(&archive);
        let digest = registry.put_blob("team/app", blob.clone());
        let mut config = good.clone();
        config["chunks"] = json!([{ "digest": Digest::of(&archive), "size": archive.len(), "blob": digest, "blobSize": blob.len() }]);
        config["mounts"][0]["chunks"] = json!([0]);
        config["mounts"][0]["size"] = json!(archive.len());
        config.to_string().into_bytes()
    };
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let other = registry.put_blob("team/app", zstd(b"something else"));
    let hostile = vec![
        ("no JSON", b"{\"mounts\"".to_vec(), true),
        ("deep", deep.into_bytes(), true),
        ("a chunk that is not there", change("/mounts/0/chunks", json!([99_999])), true),
        ("a size that cannot be", change("/mounts/0/size", json!(u64::MAX)), true),
        ("many chunks", change("/mounts/0/chunks", json!(vec![0; 200_000])), true),
        ("a directory that is a path", change("/mounts/0/directory", json!("../../x")), true),
        ("another chunk's blob", change("/chunks/0/blob", json!(other)), true),
        ("nobody's blob", change("/chunks/0/blob", json!(Digest::of("nobody's"))), true),
        ("another digest", change("/chunks/0/digest", json!(Digest::of("x"))), true),
        ("up and away", evil("../../../outside", None), true),
        ("through a link", evil("link/outside", Some(context.path("").to_str().unwrap())), false),
        ("absolute", evil(outside.to_str().unwrap(), None), false),
    ];
    for (name, config, warned) in hostile {
        put(&registry, &config);
        cold(&context);
        web.take_log();
        let run = context.build(&["--cache-mounts-from", &place(&registry)]).ok();
        assert_eq!(web.take_log().len(), PACKAGES, "{name}: {}", run.stderr);
        if warned {
            assert_eq!(warnings(&run).len(), 1, "{name}: {}", run.stderr);
        }
        assert!(!outside.exists(), "{name}");
        context.assert_nothing_left();
    }
}

/// A tar with one file, perhaps below a link.
fn archive(name: &str, link: Option<&str>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    if let Some(target) = link {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        builder.append_link(&mut header, "link", target).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    // `set_path` refuses what this is about.
    header.as_old_mut().name[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
    header.set_size(4);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append(&header, &b"evil"[..]).unwrap();
    builder.into_inner().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap()
}

/// Replaces the config, keeping the layers.
fn put(registry: &TestRegistry, config: &[u8]) {
    let manifest = registry.manifest("team/app", "mounts").unwrap();
    let mut document: Value = serde_json::from_slice(&manifest.1).unwrap();
    document["config"]["digest"] = json!(registry.put_blob("team/app", config));
    document["config"]["size"] = json!(config.len());
    registry.put_manifest("team/app", "mounts", &manifest.0, document.to_string());
}

#[test]
fn mounts_are_listed_removed_exported_and_imported() {
    let context = TestContext::of(
        "FROM base\nRUN --mount=type=cache,target=/a,id=apt echo x >/a/f\n\
         RUN --mount=type=cache,target=/b,id=cargo echo y >/b/f\n",
    );
    context.build(&[""; 0]).ok();
    let ls = || context.rbuild(&["cache", "ls"]).ok().stdout;
    let lines = ls();
    assert!(lines.starts_with("ID ") && lines.contains("\napt ") && lines.contains("\ncargo "), "{lines}");
    let du = context.rbuild(&["du"]).ok().stdout;
    assert!(du.contains("cache mount cargo"), "{du}");
    let layout = context.path("layout").display().to_string();
    let (to, from) = (format!("type=local,dest={layout}"), format!("type=local,src={layout}"));
    context.rbuild(&["cache", "export", "--to", &to, "nothing"]).fails(2, &["No such cache mount: nothing"]);
    let exported = context.rbuild(&["cache", "export", "--to", &to]).ok();
    assert!(exported.stderr.contains("2 cache mounts exported"), "{}", exported.stderr);
    let again = context.rbuild(&["cache", "export", "--to", &to, "apt"]).ok();
    assert!(again.stderr.contains("nothing to send"), "{}", again.stderr);
    context.rbuild(&["cache", "rm", "apt"]).ok();
    assert!(!ls().contains("apt") && ls().contains("cargo"), "{}", ls());
    context.rbuild(&["cache", "rm", "apt"]).fails(2, &["No such cache mount: apt"]);
    context.rbuild(&["cache", "rm"]).fails(2, &["<ID>"]);
    let import = context.rbuild(&["cache", "import", "--from", &from]).ok();
    assert!(import.stdout.starts_with("apt (") && import.stderr.contains("cargo left out"), "{import:?}");
    let import = context.rbuild(&["cache", "import", "--from", &from, "--force", "cargo"]).ok();
    assert!(import.stdout.starts_with("cargo (") && import.stderr.is_empty(), "{import:?}");
    context.rbuild(&["cache", "rm", "--all"]).ok();
    assert_eq!(ls().lines().count(), 1, "{}", ls());
    context.rbuild(&["fsck"]).ok();
}

#[test]
fn lost_blobs_are_sent_again() {
    const TEST: &str = "lost_blobs_are_sent_again";
    let Some(registry) = DebianRegistry::start(TEST, &DebianOptions::default()) else { return };
    let web = FileServer::start();
    let context = downloading(&web);
    let mounts = format!("{}/team/app:mounts", registry.host());
    context.build(&["--cache-mounts-to", &mounts]).ok();
    let layers = registry.directory().join("storage/docker/registry/v2/repositories/team/app/_layers");
    std::fs::remove_dir_all(layers).unwrap();
    step(&web, &context, "more");
    context.build(&["--cache-mounts-to", &mounts]).ok();
    cold(&context);
    web.take_log();
    step(&web, &context, "cold");
    let run = context.build(&["--cache-mounts-from", &mounts]).ok();
    assert_eq!((web.take_log().len(), warnings(&run)), (0, vec![]), "{}", run.stderr);
}

#[test]
fn bad_places_are_usage_errors() {
    let context = TestContext::of("FROM scratch\n");
    for (flag, value, words) in [
        ("--cache-mounts-to", "type=inline", "use registry or local"),
        ("--cache-mounts-from", "type=registry,ref=x,max-size=much", "max-size `much`"),
        ("--cache-mounts-to", "type=local,src=x", "unknown option `src`"),
    ] {
        context.build(&[flag, value]).fails(2, &[words]);
    }
}
