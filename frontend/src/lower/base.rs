//! What of a base image's config goes on living in the image that is built (B-001, B-002).
//!
//! BuildKit reads the base into the fields that the specifications know and writes it again: fields that are empty or that
//! describe the container of an old builder do not come out.

use rbuild_oci::ImageConfig;

/// Top-level fields besides those of [`ImageConfig`] that live on. Fields of old builders (`container`,
/// `docker_version`), the cache records and build info of another build, and what no specification names do not.
const KEPT: [&str; 2] = ["os.version", "os.features"];

/// The config of a base image without what is not inherited.
pub(super) fn inherited(mut image: ImageConfig) -> ImageConfig {
    image.other.retain(|key, value| KEPT.contains(&key.as_str()) && !is_empty(value));
    drop_empty(&mut image.author, String::is_empty);
    drop_empty(&mut image.variant, String::is_empty);
    for entry in &mut image.history {
        drop_empty(&mut entry.created_by, String::is_empty);
        drop_empty(&mut entry.author, String::is_empty);
        drop_empty(&mut entry.comment, String::is_empty);
        entry.created = entry.created.take().map(go_time);
    }
    let config = &mut image.config;
    // `Hostname`, `AttachStdin`, `Image` and the like.
    config.other.clear();
    drop_empty(&mut config.user, String::is_empty);
    drop_empty(&mut config.exposed_ports, |ports| ports.is_empty());
    drop_empty(&mut config.env, Vec::is_empty);
    drop_empty(&mut config.entrypoint, Vec::is_empty);
    drop_empty(&mut config.cmd, Vec::is_empty);
    drop_empty(&mut config.volumes, |volumes| volumes.is_empty());
    drop_empty(&mut config.working_dir, String::is_empty);
    drop_empty(&mut config.labels, |labels| labels.is_empty());
    drop_empty(&mut config.stop_signal, String::is_empty);
    drop_empty(&mut config.args_escaped, |escaped| !escaped);
    drop_empty(&mut config.on_build, Vec::is_empty);
    drop_empty(&mut config.shell, Vec::is_empty);
    if let Some(check) = &mut config.healthcheck {
        drop_empty(&mut check.test, Vec::is_empty);
        for number in [
            &mut check.interval,
            &mut check.timeout,
            &mut check.start_period,
            &mut check.start_interval,
            &mut check.retries,
        ] {
            drop_empty(number, |number| *number == 0);
        }
    }
    image
}

/// A time (RFC 3339) as Go writes it again: without zeros at the end of the fraction, and UTC as `Z`.
fn go_time(text: String) -> String {
    let zone = text.rfind(['Z', 'z', '+', '-']).filter(|at| *at > "2000-01-01T".len()).unwrap_or(text.len());
    let (time, zone) = text.split_at(zone);
    let time = if time.contains('.') { time.trim_end_matches('0').trim_end_matches('.') } else { time };
    let zone = if matches!(zone, "+00:00" | "-00:00" | "z") { "Z" } else { zone };
    format!("{time}{zone}")
}

/// Maps without entries (`EXPOSE $NOTHING`) are left out of the config, as Go does.
pub(super) fn drop_empty_maps(image: &mut ImageConfig) {
    let config = &mut image.config;
    drop_empty(&mut config.exposed_ports, |ports| ports.is_empty());
    drop_empty(&mut config.volumes, |volumes| volumes.is_empty());
    drop_empty(&mut config.labels, |labels| labels.is_empty());
}

fn drop_empty<T>(field: &mut Option<T>, is_empty: impl FnOnce(&T) -> bool) {
    if field.as_ref().is_some_and(is_empty) {
        *field = None;
    }
}

fn is_empty(value: &serde_json::Value) -> bool {
    value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// B-001, B-002: a base that an old docker made.
    #[test]
    fn fields_of_old_builders_are_left_behind() {
        let base = json!({
            "architecture": "amd64", "os": "linux", "variant": "", "author": "", "os.version": "1", "os.features": ["x"],
            "moby.buildkit.buildinfo.v1": "e30=", "moby.buildkit.cache.v0": "W10=",
            "container": "c", "container_config": {"Cmd": ["x"]}, "docker_version": "1.10", "own.key": {"kept": false},
            "config": {
                "Hostname": "h", "Domainname": "", "AttachStdin": false, "Image": "sha256:1", "NetworkDisabled": true,
                "User": "", "Env": null, "Cmd": ["sh"], "Entrypoint": [], "Volumes": {}, "Labels": {}, "OnBuild": [],
                "WorkingDir": "", "ExposedPorts": null, "ArgsEscaped": false, "StopSignal": "", "Shell": null,
                "Healthcheck": {"Test": ["NONE"], "Interval": 0, "Retries": 0},
            },
            "history": [
                {"created": "2020-01-01T00:00:00.120000000Z", "created_by": "a", "author": "", "comment": "", "x": 1},
                {"created": "2020-01-01T00:00:00.000+00:00", "created_by": "", "empty_layer": true},
                {"created": "2020-01-01T02:00:00+02:00", "empty_layer": false}, {"created": "0001-01-01T00:00:00Z"},
            ],
            "rootfs": {"type": "layers", "diff_ids": null},
        });
        let read: ImageConfig = serde_json::from_value(base).expect("a config");
        let left: Value = serde_json::to_value(inherited(read)).expect("a document");
        assert_eq!(
            left,
            json!({
                "architecture": "amd64", "os": "linux", "os.version": "1", "os.features": ["x"],
                "config": {"Cmd": ["sh"], "Healthcheck": {"Test": ["NONE"]}},
                "history": [
                    {"created": "2020-01-01T00:00:00.12Z", "created_by": "a"},
                    {"created": "2020-01-01T00:00:00Z", "empty_layer": true},
                    {"created": "2020-01-01T02:00:00+02:00"}, {"created": "0001-01-01T00:00:00Z"},
                ],
                "rootfs": {"type": "layers", "diff_ids": []},
            })
        );
    }
}
