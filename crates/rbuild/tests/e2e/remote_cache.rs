//! `--cache-to` and `--cache-from`: a cold machine builds on what another one left in a registry or a directory.

use crate::context::{Run, TestContext, installed, noise, run, skip};
use crate::image::Image;
use rbuild_oci::Digest;
use rbuild_testkit::{Action, DebianOptions, DebianRegistry, Fault, Options, TestRegistry};
use serde_json::{Value, json};
use std::process::Command;

/// Ten steps in three stages. What the tools stage makes is the same whatever changes in the sources.
const PROJECT: &str = r#"
FROM base AS tools
RUN echo tools-$((40+2)) && mkdir /tools && dd if=/dev/urandom of=/tools/cc bs=1024 count=200
RUN echo link-$((40+2)) && cp /tools/cc /tools/ld
FROM base AS build
COPY --from=tools /tools/cc /bin/cc
WORKDIR /src
COPY src/ ./
RUN echo compile-$((40+2)) && mkdir /out && cat a.c b.c > /out/program
RUN echo test-$((40+2)) && grep -q int /out/program
FROM base
RUN echo final-$((40+2)) > /marker
COPY --from=build /out/program /usr/bin/program
COPY README /usr/share/doc/
ENTRYPOINT ["program"]
"#;

fn project() -> TestContext {
    let context = TestContext::of(PROJECT);
    context.file("src/a.c", "int a;\n").file("src/b.c", noise(50_000)).file("README", "one\n");
    context
}

/// The machine is replaced: the store is empty.
fn cold(context: &TestContext) {
    std::fs::remove_dir_all(context.store()).unwrap();
}

/// Whether a step was executed, by the beginning of its instruction.
fn ran(run: &Run, step: &str) -> bool {
    run.executed().iter().any(|name| name.contains(step))
}

fn warnings(run: &Run) -> Vec<&str> {
    run.stderr.lines().filter(|line| line.starts_with("WARN")).collect()
}

/// Bytes of blobs that were downloaded, and how many.
fn downloads(registry: &TestRegistry) -> (usize, u64) {
    let log = registry.log();
    let blobs = log.iter().filter(|entry| entry.method == "GET" && entry.target.contains("/blobs/"));
    blobs.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.sent))
}

fn config_of(registry: &TestRegistry, repository: &str, tag: &str) -> Value {
    let manifest: Value = serde_json::from_slice(&registry.manifest(repository, tag).unwrap().1).unwrap();
    let config: Digest = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
    serde_json::from_slice(&registry.blob(repository, &config).unwrap()).unwrap()
}

#[test]
fn a_cold_machine_runs_nothing() {
    const TEST: &str = "a_cold_machine_runs_nothing";
    let Some(registry) = DebianRegistry::start(TEST, &DebianOptions::default()) else { return };
    let context = project();
    let cache = format!("{}/team/app:cache", registry.host());
    let export = format!("type=registry,ref={cache},mode=max");
    context.build(&["-t", "app", "--cache-to", &export]).ok();
    let first = Image::of(&context, "app:latest");
    cold(&context);
    let run = context.build(&["-t", "app", "--cache-from", &cache]).ok();
    assert_eq!(run.executed(), Vec::<String>::new(), "{}", run.stderr);
    assert_eq!((run.steps().0, run.count("-42")), (0, 0), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("CACHED ({cache})")), "{}", run.stderr);
    assert_eq!(warnings(&run), Vec::<&str>::new());
    assert_eq!(Image::of(&context, "app:latest").digest, first.digest, "the image is the same");
}

#[test]
fn one_changed_file_runs_and_downloads_only_what_depends_on_it() {
    let registry = TestRegistry::start(Options::default());
    let context = project();
    let cache = format!("{}/team/app:cache", registry.host());
    context.build(&["-t", "app", "--cache-to", &format!("type=registry,ref={cache},mode=max")]).ok();
    let config = config_of(&registry, "team/app", "cache");
    let blobs: Vec<&str> = config["rbuild"]["layers"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|layer| layer["blob"]["digest"].as_str())
        .collect();
    assert_eq!(blobs.len(), 10, "one for each step: {config:#}");
    cold(&context);
    registry.clear_log();
    context.file("src/a.c", "int changed;\n");
    let run = context.build(&["-o", "type=cacheonly", "--cache-from", &cache]).ok();
    let executed = run.executed();
    let changed = ["COPY src/", "RUN echo compile", "RUN echo test", "COPY --from=build", "COPY README"];
    assert_eq!(executed.len(), changed.len(), "{executed:?}");
    for step in changed {
        assert!(executed.iter().any(|name| name.contains(step)), "{step} in {executed:?}");
    }
    // The cache's config; /bin/cc and /src, on which the sources stand; /marker, on which the program stands. Not the tools.
    let (count, bytes) = downloads(&registry);
    println!("one changed file: {count} blobs, {bytes} bytes, {} requests", registry.log().len());
    assert_eq!(count, 4, "{:#?}", registry.log());
    assert!((200_000..260_000).contains(&bytes), "{bytes}");
}

#[test]
fn a_step_that_makes_the_same_files_stops_the_change_on_a_cold_machine() {
    let registry = TestRegistry::start(Options::default());
    let dockerfile = "FROM base AS build\nCOPY in /in\nRUN grep -v '^#' /in > /out\n\
                      FROM base\nCOPY --from=build /out /out\nRUN echo last-$((1+1))\n\
                      FROM base\nCOPY in /in\nRUN sed -i '/^#/d' /in && touch -d @0 /in\nRUN echo end-$((1+1))\nCOPY --from=1 /out /out\n";
    let context = TestContext::of(dockerfile);
    context.file("in", "# one\nx\n");
    let cache = format!("{}/cut", registry.host());
    context.build(&["--cache-to", &format!("type=registry,ref={cache},mode=max")]).ok();
    cold(&context);
    context.file("in", "# two\nx\n");
    let run = context.build(&["--cache-from", &cache]).ok();
    assert_eq!(run.count("last-2"), 0, "its inputs have the same content: {}", run.stderr);
    assert!(run.stderr.contains("CACHED ("), "{}", run.stderr);
}

#[test]
fn an_unchanged_build_exports_nothing() {
    let registry = TestRegistry::start(Options::default());
    let context = project();
    let cache = format!("{}/team/app:cache", registry.host());
    let export = format!("type=registry,ref={cache},mode=max");
    context.build(&["-t", "app", "--cache-to", &export]).ok();
    let before = registry.manifest("team/app", "cache").unwrap();
    let sent = |registry: &TestRegistry| {
        ["PUT", "POST", "PATCH"].map(|method| registry.count(method, "/")).iter().sum::<usize>()
    };
    let asked = |registry: &TestRegistry| registry.count("HEAD", "/") + registry.count("GET", "/blobs/");
    registry.clear_log();
    context.build(&["-t", "app", "--cache-to", &export]).ok();
    assert_eq!((sent(&registry), asked(&registry)), (0, 0), "{:#?}", registry.log());
    println!("unchanged export: {} requests", registry.log().len());

    registry.clear_log();
    let run = context.build(&["-t", "app", "--cache-from", &cache, "--cache-to", &export]).ok();
    assert_eq!(run.steps().0, 0);
    assert_eq!((sent(&registry), asked(&registry)), (0, 0), "all is here: the cache is not imported");

    cold(&context);
    registry.clear_log();
    context.build(&["-o", "type=cacheonly", "--cache-from", &cache, "--cache-to", &export]).ok();
    assert_eq!(sent(&registry), 0, "{:#?}", registry.log());
    assert_eq!(downloads(&registry).0, 1, "the config");
    assert_eq!(registry.manifest("team/app", "cache").unwrap(), before);

    // One more step: its layer, the config and the manifest.
    context.dockerfile(&format!("{PROJECT}COPY README /again\n"));
    registry.clear_log();
    context.build(&["-o", "type=cacheonly", "--cache-to", &export]).ok();
    assert_eq!(registry.count("POST", "/blobs/uploads"), 2, "{:#?}", registry.log());
    assert_eq!(registry.count("PUT", "/manifests/"), 1);
    assert_eq!(registry.count("HEAD", "/blobs/"), 2, "nothing is asked about what the manifest names");
}

#[test]
fn a_local_hit_asks_nobody() {
    let registry = TestRegistry::start(Options::default());
    let context = project();
    let cache = format!("{}/team/app:cache", registry.host());
    context.build(&["-t", "app", "--cache-to", &format!("{cache},other/x").replace(",other/x", "")]).ok();
    registry.clear_log();
    context.build(&["-t", "app", "--cache-from", &cache]).ok();
    assert!(registry.log().is_empty(), "{:#?}", registry.log());
}

#[test]
fn a_dead_registry_costs_one_warning() {
    let context = project();
    let cache = "127.0.0.1:1/team/app:cache";
    let run = context.build(&["-t", "app", "--cache-from", cache, "--cache-to", cache]).ok();
    assert_eq!(warnings(&run).len(), 1, "{:?}", warnings(&run));
    assert!(warnings(&run)[0].contains(cache), "{:?}", warnings(&run));
    assert!(run.stderr.contains(&format!("remote cache unreachable: {cache}")), "{}", run.stderr);
    context.build(&["-t", "app", "--cache-to", cache]).ok();
    let wanted = format!("type=registry,ref={cache},ignore-error=false");
    context
        .build(&["-t", "app", "--cache-to", &wanted])
        .fails(3, &["exporting cache to 127.0.0.1:1/team/app:cache"]);
    Image::of(&context, "app:latest");
}

#[test]
fn a_missing_cache_costs_one_warning() {
    let registry = TestRegistry::start(Options::default());
    let context = project();
    let cache = format!("{}/none:1", registry.host());
    let run = context.build(&["-t", "app", "--cache-from", &cache]).ok();
    assert_eq!(warnings(&run).len(), 1, "{}", run.stderr);
    assert!(warnings(&run)[0].contains("not found"), "{}", run.stderr);
}

#[test]
fn bad_options_are_usage_errors() {
    let context = TestContext::of("FROM scratch\n");
    for (flag, value, words) in [
        ("--cache-to", "type=gha", "use registry, local or inline"),
        ("--cache-from", "type=s3,bucket=x", "use registry or local"),
        ("--cache-to", "type=registry,ref=x,modde=max", "did you mean mode?"),
        ("--cache-export-budget", "soon", "expected a duration"),
    ] {
        context.build(&[flag, value]).fails(2, &[words]);
    }
}

#[test]
fn a_push_from_the_cache_moves_no_layer() {
    let registry = TestRegistry::start(Options::default());
    let context = project();
    let (cache, app) = (format!("{}/team/cache", registry.host()), format!("{}/team/app:1", registry.host()));
    context.build(&["--cache-to", &format!("type=registry,ref={cache},mode=max")]).ok();
    cold(&context);
    registry.clear_log();
    let run = context.build(&["-t", &app, "--push", "--cache-from", &cache]).ok();
    assert_eq!(run.steps().0, 0, "{}", run.stderr);
    assert_eq!(downloads(&registry).0, 1, "the cache's config: {:#?}", registry.log());
    // Everything but the base (a local layout) and the config is mounted.
    assert_eq!(registry.count("PUT", "/blobs/uploads"), 2, "{:#?}", registry.log());
    assert_eq!(context.rbuild(&["images", "-q"]).ok().stdout, "", "a name stands for a whole image");
    let from_registry =
        TestContext::of(&format!("FROM {app}\nRUN test -e /marker && test -e /usr/bin/program\n"));
    from_registry.build(&[""; 0]).ok();
    context.build(&["-t", &app, "--push", "--load"]).ok();
    assert_eq!(Image::only(&context.store()).layers.len(), 4);
}

#[test]
fn a_deleted_blob_lets_its_step_run_again() {
    const TEST: &str = "a_deleted_blob_lets_its_step_run_again";
    let Some(registry) = DebianRegistry::start(TEST, &DebianOptions::default()) else { return };
    let context = project();
    let cache = format!("{}/team/app:cache", registry.host());
    context.build(&["-t", "app", "--cache-to", &format!("type=registry,ref={cache},mode=max")]).ok();
    // All layers are lost: of every repository the links to blobs that are not the config.
    let layers = registry.directory().join("storage/docker/registry/v2/repositories/team/app/_layers/sha256");
    let manifest = run_curl(&format!("http://{}/v2/team/app/manifests/cache", registry.host()));
    let config = manifest["config"]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    for entry in std::fs::read_dir(&layers).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str() != Some(&config) {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
    cold(&context);
    context.file("src/a.c", "int changed;\n");
    let again = context.build(&["-t", "app", "--cache-from", &cache]).ok();
    assert!(ran(&again, "RUN echo final") && ran(&again, "RUN echo compile"), "{}", again.stderr);
    assert_eq!(warnings(&again).len(), 1, "{}", again.stderr);
    assert!(warnings(&again)[0].contains("run after all"), "{}", again.stderr);
    Image::of(&context, "app:latest");
    context.assert_nothing_left();
    // The next export notices that what the manifest names is not there, and heals it.
    let export = format!("type=registry,ref={cache},mode=max,ignore-error=false");
    context.build(&["-t", "app", "--cache-to", &export]).ok();
    cold(&context);
    let healed = context.build(&["-t", "app", "--cache-from", &cache]).ok();
    assert_eq!(healed.steps().0, 0, "{}", healed.stderr);
}

fn run_curl(url: &str) -> Value {
    let mut curl = Command::new("curl");
    curl.args(["-sf", "-H", "Accept: application/vnd.oci.image.manifest.v1+json", url]);
    serde_json::from_slice(&run(curl, b"").ok().bytes).unwrap()
}

#[test]
fn an_image_brings_its_own_cache() {
    let registry = TestRegistry::start(Options::default());
    let context = project();
    let app = format!("{}/team/app:1", registry.host());
    for inline in [&["--cache-to", "type=inline"][..], &["--build-arg", "BUILDKIT_INLINE_CACHE=1"]] {
        context.build(&[inline, &["-t", &app, "--push"]].concat()).ok();
        let config = config_of(&registry, "team/app", "1");
        assert!(config["moby.buildkit.cache.v0"].is_string(), "{config:#}");
        cold(&context);
        registry.clear_log();
        let run = context.build(&["-t", &app, "--push", "--cache-from", &app, inline[0], inline[1]]).ok();
        assert_eq!(run.count("-42"), 0, "{}", run.stderr);
        assert_eq!(run.steps().0, 0, "{}", run.stderr);
        assert_eq!(config_of(&registry, "team/app", "1"), config, "the same image again");
    }
    // What is built on it does not carry the cache on.
    context.dockerfile(&format!("FROM {app}\nLABEL a=b\n"));
    context.build(&["-t", &format!("{}/team/child:1", registry.host()), "--push"]).ok();
    assert!(config_of(&registry, "team/child", "1")["moby.buildkit.cache.v0"].is_null());
    // An image without a cache is no error.
    let child = format!("{}/team/child:1", registry.host());
    let run = context.build(&["--no-cache-filter", "x", "--label", "b=c", "--cache-from", &child]).ok();
    assert_eq!(warnings(&run), Vec::<&str>::new(), "{}", run.stderr);
}

#[test]
fn a_directory_is_a_cache() {
    const TEST: &str = "a_directory_is_a_cache";
    let context = project();
    let dir = context.path("cache");
    let shown = dir.display();
    context.build(&["-t", "app", "--cache-to", &format!("type=local,dest={shown},mode=max")]).ok();
    let blobs = || std::fs::read_dir(dir.join("blobs/sha256")).unwrap().count();
    assert_eq!(blobs(), 12, "ten layers, config, manifest");
    let first = Image::of(&context, "app:latest").digest;
    cold(&context);
    let run = context.build(&["-t", "app", "--cache-from", &format!("type=local,src={shown}")]).ok();
    assert_eq!(run.steps().0, 0, "{}", run.stderr);
    assert_eq!(Image::of(&context, "app:latest").digest, first);
    if installed("skopeo") {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["inspect", "--raw", &format!("oci:{shown}:latest")]);
        let manifest: Value = serde_json::from_slice(&run_of(skopeo)).unwrap();
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.buildkit.cacheconfig.v0");
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 10);
    } else {
        skip(TEST, "skopeo is not installed");
    }
    // Another name beside it shares the blobs; reset removes what no name needs.
    context.build(&["-t", "app", "--cache-to", &format!("type=local,dest={shown},tag=min")]).ok();
    assert_eq!(blobs(), 14, "a config and a manifest more");
    context.file("src/a.c", "int changed;\n");
    context.build(&["-t", "app", "--cache-to", &format!("type=local,dest={shown},tag=min,reset=true")]).ok();
    let with_both = blobs();
    context.build(&["-t", "app", "--cache-to", &format!("type=local,dest={shown},reset=true")]).ok();
    assert!(blobs() < with_both, "{} and {with_both}", blobs());
    cold(&context);
    let run = context.build(&["--cache-from", &format!("type=local,src={shown},tag=min")]).ok();
    assert_eq!(run.steps().0, 0, "{}", run.stderr);
}

fn run_of(command: Command) -> Vec<u8> {
    run(command, b"").ok().bytes
}

#[test]
fn compression_and_the_older_form() {
    let registry = TestRegistry::start(Options::default());
    let context = project();
    let cache = format!("{}/team/app:zstd", registry.host());
    let export = format!(
        "type=registry,ref={cache},mode=max,compression=zstd,force-compression=true,image-manifest=false"
    );
    context.build(&["-t", "app", "--cache-to", &export]).ok();
    let (kind, manifest) = registry.manifest("team/app", "zstd").unwrap();
    assert_eq!(kind, "application/vnd.oci.image.index.v1+json");
    let text = String::from_utf8(manifest).unwrap();
    assert_eq!(text.matches("tar+zstd").count(), 10, "{text}");
    cold(&context);
    let output = format!("type=local,dest={}", context.path("out").display());
    let run = context.build(&["-o", &output, "--cache-from", &cache]).ok();
    assert_eq!(run.steps().0, 0, "{}", run.stderr);
    let program = std::fs::read(context.path("out/usr/bin/program")).unwrap();
    assert_eq!(program, [b"int a;\n", &noise(50_000)[..]].concat());
}

#[test]
fn a_budget_ends_an_export_and_not_the_build() {
    let registry = TestRegistry::start(Options::default());
    registry
        .fault(Fault::new("/blobs/uploads", Action::Delay(std::time::Duration::from_secs(60))).times(1000));
    let context = project();
    let cache = format!("{}/team/app:cache", registry.host());
    let run = context.build(&["-t", "app", "--cache-to", &cache, "--cache-export-budget", "700ms"]).ok();
    assert_eq!(warnings(&run).len(), 1, "{}", run.stderr);
    assert!(warnings(&run)[0].contains("--cache-export-budget"), "{}", run.stderr);
    let wanted = format!("type=registry,ref={cache},ignore-error=false");
    let failed = context.build(&["-t", "app", "--cache-to", &wanted, "--cache-export-budget", "700ms"]);
    failed.fails(3, &["--cache-export-budget"]);
    Image::of(&context, "app:latest");
    context.assert_nothing_left();
}

/// What a cache config may say to harm, and what must come of it: a warning, and everything runs.
#[test]
fn hostile_caches_do_no_harm() {
    let registry = TestRegistry::start(Options::default());
    let context = project();
    let cache = format!("{}/team/app:cache", registry.host());
    context.build(&["-t", "app", "--cache-to", &format!("type=registry,ref={cache},mode=max")]).ok();
    let good = config_of(&registry, "team/app", "cache");
    let layers = good["rbuild"]["layers"].as_array().unwrap().len();
    let change = |path: &str, value: Value| {
        let mut config = good.clone();
        *config.pointer_mut(path).unwrap() = value;
        config
    };
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("no JSON", b"{\"layers\"".to_vec()),
        ("deep", deep.into_bytes()),
        ("a text", b"\"[]\"".to_vec()),
        (
            "a layer that is not there",
            change("/rbuild/records/0/chain", json!([layers])).to_string().into_bytes(),
        ),
        ("a negative layer", change("/rbuild/records/0/chain", json!([-1])).to_string().into_bytes()),
        ("a long chain", change("/rbuild/records/0/chain", json!(vec![0; 100_000])).to_string().into_bytes()),
        ("no chain", change("/rbuild/records/0/chain", json!([])).to_string().into_bytes()),
        ("wrong types", change("/rbuild/records", json!({"a": 1})).to_string().into_bytes()),
        (
            "a digest that is a path",
            change("/rbuild/layers/0/diffID", json!("../../x")).to_string().into_bytes(),
        ),
    ];
    for (name, config) in hostile {
        put_cache(&registry, &config);
        cold(&context);
        let run = context.build(&["-o", "type=cacheonly", "--cache-from", &cache]).ok();
        assert!(ran(&run, "RUN echo final"), "{name}: {}", run.stderr);
        assert_eq!(warnings(&run).len(), 1, "{name}: {}", run.stderr);
    }
    // BuildKit's own, with records in a circle: nothing of it is used, nothing is wrong with it.
    let kit = json!({
        "layers": [{"blob": Digest::of("x"), "parent": 0}, {"blob": Digest::of("y"), "parent": -1}],
        "records": [{"digest": Digest::of("a"), "inputs": [[{"link": 1}]]}, {"digest": Digest::of("b"), "inputs": [[{"link": 0}]]}],
    });
    put_cache(&registry, kit.to_string().as_bytes());
    cold(&context);
    let run = context.build(&["-o", "type=cacheonly", "--cache-from", &cache]).ok();
    assert!(ran(&run, "RUN echo final") && warnings(&run).is_empty(), "{}", run.stderr);
}

/// Replaces the config of `team/app:cache`, keeping the layers.
fn put_cache(registry: &TestRegistry, config: &[u8]) {
    let manifest = registry.manifest("team/app", "cache").unwrap();
    let mut document: Value = serde_json::from_slice(&manifest.1).unwrap();
    let digest = registry.put_blob("team/app", config);
    document["config"]["digest"] = json!(digest);
    document["config"]["size"] = json!(config.len());
    registry.put_manifest("team/app", "cache", &manifest.0, document.to_string());
}

#[test]
fn layers_that_are_not_what_they_are_said_to_be_are_made_again() {
    let registry = TestRegistry::start(Options::default());
    let context = project();
    let cache = format!("{}/team/app:cache", registry.host());
    context.build(&["-t", "app", "--cache-to", &format!("type=registry,ref={cache},mode=max")]).ok();
    let good = config_of(&registry, "team/app", "cache");
    let names = |at: usize| good["rbuild"]["records"][at]["name"].as_str().unwrap().to_owned();
    let count = good["rbuild"]["records"].as_array().unwrap().len();
    let marker = (0..count).find(|at| names(*at).contains("final")).unwrap();
    let place =
        good["rbuild"]["records"][marker]["chain"].as_array().unwrap().last().unwrap().as_u64().unwrap();
    // Another layer's blob under the diff ID of /marker; a blob that is no archive; a blob that nobody has.
    let other = &good["rbuild"]["layers"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .find(|layer| layer["blob"].is_object())
        .unwrap()["blob"];
    let nonsense = registry.put_blob("team/app", b"nonsense".to_vec());
    let nonsense = json!({ "mediaType": other["mediaType"], "digest": nonsense, "size": 8 });
    let nobodys = json!({ "mediaType": other["mediaType"], "digest": Digest::of("nobody's"), "size": 8 });
    for blob in [other.clone(), nonsense, nobodys] {
        let mut config = good.clone();
        config["rbuild"]["layers"][usize::try_from(place).unwrap()]["blob"] = blob.clone();
        put_cache(&registry, config.to_string().as_bytes());
        cold(&context);
        context.file("README", "two\n");
        let out = context.path("out");
        drop(std::fs::remove_dir_all(&out));
        let output = format!("type=local,dest={}", out.display());
        let run = context.build(&["-o", &output, "--cache-from", &cache]).ok();
        assert!(ran(&run, "RUN echo final"), "{blob}: {}", run.stderr);
        assert!(!ran(&run, "RUN echo compile"), "{blob}: {}", run.stderr);
        assert_eq!(warnings(&run).len(), 1, "{blob}: {}", run.stderr);
        assert_eq!(std::fs::read_to_string(out.join("marker")).unwrap(), "final-42\n");
    }
}

#[test]
fn another_platform_is_not_served() {
    let registry = TestRegistry::start(Options::default());
    let context = TestContext::of("FROM scratch\nCOPY --link x /x\nCOPY x /y\n");
    context.file("x", "x");
    let cache = format!("{}/multi:cache", registry.host());
    let export = format!("type=registry,ref={cache},mode=max");
    context.build(&["--platform", "linux/arm64", "--cache-to", &export]).ok();
    cold(&context);
    let run = context.build(&["-t", "app", "--platform", "linux/amd64", "--cache-from", &cache]).ok();
    assert_eq!(Image::of(&context, "app:latest").config["architecture"], "amd64", "{}", run.stderr);
}

#[test]
fn two_exports_at_once_leave_a_whole_cache() {
    let registry = TestRegistry::start(Options::default());
    let cache = format!("{}/team/app:cache", registry.host());
    let export = format!("type=registry,ref={cache},mode=max");
    let contexts: Vec<TestContext> = (0..2).map(|_| project()).collect();
    contexts[1].file("src/a.c", "int other;\n");
    std::thread::scope(|scope| {
        for context in &contexts {
            scope.spawn(|| context.build(&["-t", "app", "--cache-to", &export]).ok());
        }
    });
    let cached = contexts.iter().filter(|context| {
        cold(context);
        context.build(&["-t", "app", "--cache-from", &cache]).ok().steps().0 == 0
    });
    assert_eq!(cached.count(), 1, "the last one wins");
}

/// Everything that could bring a path, an inode or an order of this machine into a key.
const PORTABLE: &str = r#"
FROM base AS one
ARG A=1
COPY --link tree/ /tree/
COPY --chown=daemon:bin tree/a /owned
ADD packed.tar.gz /unpacked/
WORKDIR /work
RUN --mount=type=bind,source=tree,target=/bound --mount=type=tmpfs,target=/t cat /bound/* > all
RUN --mount=type=bind,from=base,source=/etc,target=/e --mount=type=cache,target=/c ls /e > list && touch /c/x
COPY <<END /heredoc
text $A
END
FROM scratch
COPY --from=one /work/ /
COPY --from=one --link /tree/ /tree/
"#;

#[test]
fn keys_are_the_same_in_another_place() {
    let registry = TestRegistry::start(Options::default());
    let cache = format!("{}/team/app:cache", registry.host());
    let machine = |names: &[&str]| {
        let context = TestContext::of(PORTABLE);
        for name in names {
            context.file(&format!("tree/{name}"), format!("content of {name}"));
        }
        let tar = |args: &[&str]| {
            let mut tar = Command::new("tar");
            tar.args(args).current_dir(context.in_context(""));
            run(tar, b"").ok();
        };
        let sorted = ["--sort=name", "--owner=0", "--group=0", "--mtime=@0", "-cf", "packed.tar", "tree"];
        tar(&sorted);
        let mut gzip = Command::new("gzip");
        gzip.args(["-n", "packed.tar"]).current_dir(context.in_context(""));
        run(gzip, b"").ok();
        context
    };
    let first = machine(&["a", "b", "c"]);
    first.build(&["-t", "app", "--cache-to", &format!("type=registry,ref={cache},mode=max")]).ok();
    let second = machine(&["c", "b", "a"]);
    let run = second.build(&["-t", "app", "--cache-from", &cache]).ok();
    assert_eq!(run.executed(), Vec::<String>::new(), "{}", run.stderr);
    let (made, imported) = (Image::of(&first, "app:latest"), Image::of(&second, "app:latest"));
    assert_eq!((made.config, made.digest), (imported.config, imported.digest));
}

#[test]
fn source_date_epoch_goes_with_the_layers() {
    let registry = TestRegistry::start(Options::default());
    let mut context = project();
    context.env("SOURCE_DATE_EPOCH", "1500000000");
    let cache = format!("{}/team/app:cache", registry.host());
    let export = format!("type=registry,ref={cache},mode=max");
    context.build(&["-t", "app", "--cache-to", &export, "--cache-to", "type=inline"]).ok();
    let first = Image::of(&context, "app:latest");
    cold(&context);
    registry.clear_log();
    let both = ["-t", "app", "--cache-from", &cache, "--cache-to", &export, "--cache-to", "type=inline"];
    let run = context.build(&both).ok();
    assert_eq!((run.steps().0, warnings(&run).len()), (0, 0), "{}", run.stderr);
    assert_eq!(Image::of(&context, "app:latest").config, first.config);
    assert_eq!(registry.count("PUT", "/"), 0, "the epoch comes back into the cache as it was");
    cold(&context);
    context.env("SOURCE_DATE_EPOCH", "1600000000");
    let run = context.build(&["-t", "app", "--cache-from", &cache]).ok();
    let executed = run.executed();
    assert!(executed.iter().all(|step| step.contains("WORKDIR")), "it alone writes the time: {executed:?}");
    assert_eq!(warnings(&run).len(), 1, "{}", run.stderr);
    assert!(warnings(&run)[0].contains("SOURCE_DATE_EPOCH"), "{}", run.stderr);
}

#[test]
fn a_registry_that_dies_after_the_records_were_read_costs_one_warning() {
    let registry = TestRegistry::start(Options::default());
    let context = project();
    let cache = format!("{}/team/app:cache", registry.host());
    context.build(&["-t", "app", "--cache-to", &format!("type=registry,ref={cache},mode=max")]).ok();
    cold(&context);
    let refusal = Action::Status(403, vec![], "no more".into());
    registry.fault(Fault::new("/blobs/", refusal).method("GET").after(1).times(10_000));
    let run = context.build(&["-t", "app", "--cache-from", &cache]).ok();
    assert_eq!(warnings(&run).len(), 1, "{}", run.stderr);
    assert!(ran(&run, "RUN echo final"), "{}", run.stderr);
    Image::of(&context, "app:latest");
    assert_eq!(context.build(&["-t", "app", "--cache-from", &cache]).ok().steps().0, 0, "what ran is kept");
}

#[test]
fn a_second_cache_helps_out() {
    let registry = TestRegistry::start(Options::default());
    let context = project();
    let (one, two) = (format!("{}/one:cache", registry.host()), context.path("cache"));
    let local = format!("type=local,dest={},mode=max", two.display());
    context
        .build(&[
            "-t",
            "app",
            "--cache-to",
            &format!("type=registry,ref={one},mode=max"),
            "--cache-to",
            &local,
        ])
        .ok();
    cold(&context);
    let refusal = Action::Status(404, vec![], "gone".into());
    registry.fault(Fault::new("/blobs/", refusal).method("GET").after(1).times(10_000));
    let from = format!("type=local,src={}", two.display());
    let run = context.build(&["-t", "app", "--cache-from", &one, "--cache-from", &from]).ok();
    assert_eq!((run.steps().0, warnings(&run).len()), (0, 0), "{}", run.stderr);
    Image::of(&context, "app:latest");
}

#[test]
fn a_damaged_blob_of_a_directory_is_healed_by_the_next_export() {
    let context = TestContext::of("FROM base\nRUN echo x > /x\nCOPY Dockerfile /\n");
    let dir = context.path("cache");
    let export = format!("type=local,dest={},mode=max", dir.display());
    let import = format!("type=local,src={}", dir.display());
    let mut context = context;
    context.env("SOURCE_DATE_EPOCH", "1500000000");
    context.build(&["-t", "app", "--cache-to", &export]).ok();
    for blob in std::fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            bytes[20] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    cold(&context);
    let run = context.build(&["-t", "app", "--cache-from", &import, "--cache-to", &export]).ok();
    assert_eq!((run.executed().len(), warnings(&run).len()), (2, 1), "{}", run.stderr);
    cold(&context);
    let run = context.build(&["-t", "app", "--cache-from", &import]).ok();
    assert_eq!((run.steps().0, warnings(&run).len()), (0, 0), "{}", run.stderr);
}

#[test]
fn offline_asks_no_registry() {
    let registry = TestRegistry::start(Options::default());
    let context = project();
    let cache = format!("{}/team/app:cache", registry.host());
    let run = context.build(&["-t", "app", "--offline", "--cache-from", &cache, "--cache-to", &cache]).ok();
    assert_eq!(warnings(&run).len(), 2, "{}", run.stderr);
    assert!(registry.log().is_empty());
    let dir = format!("type=local,dest={}", context.path("cache").display());
    context.build(&["-t", "app", "--offline", "--cache-to", &dir]).ok();
    assert!(context.path("cache/index.json").exists());
}

#[test]
fn a_failed_build_exports_nothing() {
    let registry = TestRegistry::start(Options::default());
    let context = TestContext::of("FROM base\nRUN echo x > /x\nRUN exit 4\n");
    let cache = format!("{}/team/app:cache", registry.host());
    context
        .build(&["--cache-to", &format!("type=registry,ref={cache},mode=max")])
        .fails(1, &["exit code: 4"]);
    assert!(registry.manifest("team/app", "cache").is_none());
    context.assert_nothing_left();
}

#[test]
fn other_names_of_the_base_hit_too() {
    let registry = TestRegistry::start(Options::default());
    let base = TestContext::of("FROM base\nRUN echo base > /base\n");
    let names = ["one/base:1", "two/base:2"].map(|name| format!("{}/{name}", registry.host()));
    base.build(&["-t", &names[0], "-t", &names[1], "--push"]).ok();
    let cache = format!("{}/cache", registry.host());
    let context = TestContext::of(&format!("FROM {}\nRUN cat /base > /copy\n", names[0]));
    context.build(&["--cache-to", &cache]).ok();
    cold(&context);
    context.dockerfile(&format!("FROM {}\nRUN cat /base > /copy\n", names[1]));
    let run = context.build(&["-o", "type=cacheonly", "--cache-from", &cache]).ok();
    assert_eq!(run.count("CACHED ("), 1, "{}", run.stderr);
}
