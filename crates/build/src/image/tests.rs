use super::*;
use rbuild_ir::HistoryEntry;
use rbuild_oci::Platform;
use std::time::Duration;

fn layer(name: &str, made_at: Option<u64>) -> ImageLayer {
    let descriptor = Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::of(name), 1);
    ImageLayer {
        packed: PackedLayer { diff_id: Digest::of(name), descriptor },
        created: made_at.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
    }
}

/// `+x` makes a layer, `-x` does not.
fn image(base: &[(&str, Option<&str>)], new: &[&str]) -> ImageResult {
    let history = base.iter().map(|(text, created)| History {
        created: created.map(str::to_owned),
        created_by: Some((*text).to_owned()),
        empty_layer: text.starts_with('-'),
        ..History::default()
    });
    ImageResult {
        root: None,
        config: ImageConfig { history: history.collect(), ..ImageConfig::default() },
        history: (new.iter())
            .map(|text| HistoryEntry {
                created_by: (*text).to_owned(),
                comment: "buildkit.dockerfile.v0".into(),
                vertex: text.starts_with('+').then(|| Digest::of(text)),
            })
            .collect(),
        origins: Vec::new(),
        platform: Platform::linux("amd64"),
        source_date_epoch: None,
    }
}

fn times(image: &ImageResult, layers: &[ImageLayer]) -> (Vec<Option<String>>, Option<String>) {
    let config = config(image, layers);
    (config.history.into_iter().map(|entry| entry.created).collect(), config.created)
}

fn at(seconds: i64) -> Option<String> {
    Some(format_seconds(seconds, 0))
}

const OLD: &str = "2020-01-01T00:00:00Z";

/// B-009, B-011
#[test]
fn b_009_metadata_before_the_first_new_layer_has_that_layers_time() {
    let image = image(&[("+base", Some(OLD))], &["-ENV", "+RUN", "-CMD", "+COPY", "-LABEL"]);
    let layers = [layer("base", None), layer("run", Some(100)), layer("copy", Some(200))];
    let old = Some(OLD.to_owned());
    assert_eq!(times(&image, &layers), (vec![old, at(100), at(100), at(100), at(200), at(200)], at(200)));
}

/// B-009, B-011
#[test]
fn b_009_without_a_new_layer_the_last_known_time_counts() {
    let only_metadata = image(&[("+base", Some(OLD))], &["-ENV"]);
    let old = Some(OLD.to_owned());
    assert_eq!(times(&only_metadata, &[layer("base", None)]), (vec![old.clone(), old.clone()], old));
    assert_eq!(times(&image(&[], &["-ENV"]), &[]), (vec![None], None), "scratch with metadata has no time");
}

/// B-010
#[test]
fn b_010_entries_with_a_layer_match_the_layers() {
    let config_of = |base: &[(&str, Option<&str>)], layers: &[ImageLayer]| config(&image(base, &[]), layers);
    let too_few = config_of(&[], &[layer("a", None), layer("b", None)]);
    assert_eq!(too_few.history.len(), 2);
    assert_eq!(too_few.history[0].comment.as_deref(), Some("buildkit.exporter.image.v0"));
    assert_eq!(too_few.history[1].created_by.as_deref(), Some("created by buildkit"));
    let too_many = config_of(&[("+a", None), ("+b", None)], &[layer("a", None)]);
    assert_eq!(too_many.history.iter().map(|entry| entry.empty_layer).collect::<Vec<_>>(), [false, true]);
}

/// B-010: the added entries speak of the last layers, wherever the gap was.
#[test]
fn b_010_entries_that_are_missing_tell_what_made_the_last_layers() {
    let mut image = image(&[], &["-ENV", "+COPY", "+RUN"]);
    image.origins =
        ["pulled from x@y", "fileop target", "mount / from exec /bin/sh -c x"].map(str::to_owned).into();
    let base = || layer("base", None);
    let entries = |config: ImageConfig| {
        let shown = |entry: History| (entry.created_by.unwrap_or_default(), entry.created);
        config.history.into_iter().skip(3).map(shown).collect::<Vec<_>>()
    };
    let layers = [base(), base(), base(), layer("copy", Some(100)), layer("run", Some(200))];
    assert_eq!(
        entries(config(&image, &layers)),
        [
            ("pulled from x@y".to_owned(), at(100)),
            ("fileop target".to_owned(), at(100)),
            ("mount / from exec /bin/sh -c x".to_owned(), at(200)),
        ]
    );
    image.history.truncate(1);
    image.origins[0].clear();
    assert_eq!(
        entries(config(&image, &layers[2..])).first().map(|(text, _)| text.as_str()),
        Some("mount / from exec /bin/sh -c x")
    );
}

/// B-012
#[test]
fn b_012_new_entries_are_clamped_and_the_bases_stay() {
    let mut image = image(&[("+base", Some("2099-01-01T00:00:00Z"))], &["+RUN", "-CMD"]);
    image.source_date_epoch = Some(1000);
    let layers = [layer("base", None), layer("run", Some(5000))];
    assert_eq!(
        times(&image, &layers),
        (vec![Some("2099-01-01T00:00:00Z".into()), at(1000), at(1000)], at(1000))
    );
    let earlier = [layer("base", None), layer("run", Some(500))];
    assert_eq!(times(&image, &earlier).0[1], at(1000), "an instruction's time is the epoch");
    // An entry of the base that had to be dated is no longer the base's; nor are those behind it.
    image.config.history.insert(0, History { created_by: Some("+old".into()), ..History::default() });
    let layers = [layer("old", None), layer("base", None), layer("run", Some(500))];
    assert_eq!(times(&image, &layers).0, vec![at(1000); 4]);
}

/// B-006
#[test]
fn b_006_the_config_is_sorted_and_escaped_as_go_does() {
    let mut image = image(&[], &["-CMD [\"a && b\"]"]);
    image.config.other.insert("aardvark".into(), serde_json::json!(1));
    let made = documents(&image, &[], None).unwrap();
    let text = String::from_utf8(made.config).unwrap();
    assert!(text.starts_with(r#"{"aardvark":1,"architecture":"""#), "{text}");
    assert!(text.contains(r"a \u0026\u0026 b"), "{text}");
    assert_eq!(made.descriptor.digest, Digest::of(&made.manifest));
    // No blanks, `<` and `>` escaped, the parts in the order of Go's structs.
    let config = r#"{"Shell":["s"],"OnBuild":["RUN <x>"],"Healthcheck":{"Retries":1,"Test":["NONE"]},"ArgsEscaped":true,
        "StopSignal":"9","Labels":{"b":"2","a":"1"},"WorkingDir":"/w","Volumes":{"/v":{}},"Cmd":["c"],"Entrypoint":["e"],
        "Env":["A=1"],"ExposedPorts":{"80/tcp":{}},"User":"u"}"#;
    image.config.config = serde_json::from_str(config).unwrap();
    image.config.author = Some("me".into());
    image.config.architecture = "arm64".into();
    image.config.os = "linux".into();
    let text = String::from_utf8(documents(&image, &[layer("a", Some(0))], None).unwrap().config).unwrap();
    let diff_id = Digest::of("a");
    let want = format!(
        "{}{}{}",
        r#"{"aardvark":1,"architecture":"arm64","author":"me","config":{"User":"u","ExposedPorts":{"80/tcp":{}},"Env":["A=1"],"Entrypoint":["e"],"Cmd":["c"],"Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"a":"1","b":"2"},"StopSignal":"9","ArgsEscaped":true,"Healthcheck":{"Test":["NONE"],"Retries":1},"OnBuild":["RUN \u003cx\u003e"],"Shell":["s"]},"#,
        r#""created":"1970-01-01T00:00:00Z","history":[{"created":"1970-01-01T00:00:00Z","created_by":"-CMD [\"a \u0026\u0026 b\"]","comment":"buildkit.dockerfile.v0","empty_layer":true},{"created":"1970-01-01T00:00:00Z","created_by":"created by buildkit","comment":"buildkit.exporter.image.v0"}],"#,
        format_args!(r#""os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#),
    );
    assert_eq!(text, want);
}
