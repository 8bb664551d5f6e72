use super::*;
use rbuild_ir::Device as Wanted;
use rbuild_runtime::{MountKind, Spec};
use std::fs;

const GPU: &str = r#"
cdiVersion: "0.6.0"
kind: vendor1.com/gpu
annotations:
  org.mobyproject.buildkit.device.autoallow: "true"
containerEdits:
  env: [ALL=1]
devices:
- name: one
  annotations:
    org.mobyproject.buildkit.device.class: fast
    org.mobyproject.buildkit.device.autoallow: "false"
  containerEdits:
    env: [FOO=injected=x]
    deviceNodes:
    - path: /dev/rbuild0
      hostPath: /dev/zero
    - {path: /dev/dir/disk, type: b, major: 7, minor: 3, fileMode: 416, uid: 3, gid: 4, permissions: rw}
- name: two
  annotations: {org.mobyproject.buildkit.device.class: fast}
  containerEdits:
    mounts:
    - {hostPath: /usr/lib, containerPath: /gpu/lib, options: [ro, nosuid]}
"#;

fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Devices) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let dirs: Vec<_> = ["etc", "missing", "run"].iter().map(|name| dir.path().join(name)).collect();
    let devices = Devices::read(&dirs);
    (dir, devices)
}

fn wanted(names: &[&str]) -> Vec<Wanted> {
    names.iter().map(|name| Wanted { name: (*name).to_owned(), required: true }).collect()
}

/// A-094
#[test]
fn a_094_names_are_found_as_buildkit_finds_them() {
    let (_dir, devices) = machine(&[("etc/gpu.yaml", GPU)]);
    let cases: [(&str, &[&str]); 7] = [
        ("vendor1.com/gpu=one", &["vendor1.com/gpu=one"]),
        ("vendor1.com/gpu", &["vendor1.com/gpu=one"]),
        ("vendor1.com/gpu=*", &["vendor1.com/gpu=one", "vendor1.com/gpu=two"]),
        ("vendor1.com/gpu=fast", &["vendor1.com/gpu=one", "vendor1.com/gpu=two"]),
        ("vendor1.com/gpu=slow", &[]),
        ("vendor1.com/gp", &[]),
        ("vendor2.com/gpu=*", &[]),
    ];
    for (name, expected) in cases {
        assert_eq!(devices.find(name, false).unwrap(), expected, "{name}");
        let required = devices.find(name, true).map_err(|error| error.to_string());
        match expected {
            [] => assert_eq!(required.unwrap_err(), format!("required device {name:?} is not registered")),
            _ => assert_eq!(required.unwrap(), expected),
        }
    }
    for name in ["", "foo", "=x", "/x=y", "vendor/=y", "1v/c=d", "v/c/d=e", "v./c=d"] {
        assert_eq!(devices.find(name, false), Err(DeviceError::Name(name.to_owned())), "{name}");
    }
    assert!(
        !devices.is_auto_allowed("vendor1.com/gpu=one") && devices.is_auto_allowed("vendor1.com/gpu=two")
    );
}

/// A-094
#[test]
fn a_094_edits_of_a_file_come_once_and_first() {
    let (_dir, devices) = machine(&[("etc/gpu.yaml", GPU)]);
    let mut optional = wanted(&["vendor1.com/gpu=*", "vendor1.com/gpu=one"]);
    optional.push(Wanted { name: "v.com/none".into(), required: false });
    let step = devices.for_step(&optional).unwrap();
    assert_eq!(step.missing, ["v.com/none"]);
    let mut spec = Spec::new(vec![], "/u".into(), "/w".into(), vec!["x".into()]);
    spec.env.push(("FOO".into(), "old".into()));
    step.apply(&mut spec);
    let env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["FOO=old", "ALL=1", "FOO=injected=x"]);
    let nodes: Vec<_> = spec
        .devices
        .iter()
        .map(|n| (n.path.as_str(), n.block, n.major, n.minor, n.mode, n.uid, n.gid))
        .collect();
    assert_eq!(
        nodes,
        [("/dev/rbuild0", false, 1, 5, 0o666, 0, 0), ("/dev/dir/disk", true, 7, 3, 0o640, 3, 4)]
    );
    let [mount] = &spec.mounts[..] else { panic!("{:?}", spec.mounts) };
    let kind = MountKind::Bind { source: "/usr/lib".into(), subpath: String::new() };
    assert_eq!((mount.target.as_str(), &mount.kind, mount.readonly), ("/gpu/lib", &kind, true));
}

/// A-094
#[test]
fn a_094_json_and_later_directories() {
    let json = r#"{"cdiVersion":"0.3.0","kind":"vendor1.com/gpu","devices":[
        {"name":"one","containerEdits":{"env":["FROM=run"]}}]}"#;
    let (_dir, devices) = machine(&[("etc/gpu.yaml", GPU), ("run/gpu.json", json)]);
    let step = devices.for_step(&wanted(&["vendor1.com/gpu=one"])).unwrap();
    assert_eq!(step.env, [("FROM".to_owned(), "run".to_owned())]);
    let (_dir, devices) = machine(&[("etc/gpu.yaml", GPU), ("etc/again.json", json)]);
    let error = devices.find("vendor1.com/gpu=one", true).unwrap_err().to_string();
    assert!(error.contains("vendor1.com/gpu=one is described twice, by "), "{error}");
}

/// A-094
#[test]
fn a_094_what_a_step_cannot_have_is_refused() {
    let cases = [
        ("hooks: [{hookName: createContainer, path: /bin/x}]", "it needs hooks, which RUN steps do not have"),
        ("netDevices: [{hostInterfaceName: a, name: b}]", "it needs network devices"),
        ("additionalGids: [44]", "it needs further groups"),
        ("intelRdt: {closID: x}", "it needs Intel RDT"),
        ("env: [x]", "`x` is not of the form NAME=value"),
        ("deviceNodes: [{path: /dev/x, type: p}]", "/dev/x is a named pipe"),
        ("deviceNodes: [{path: /dev/no-such-device}]", "/dev/no-such-device of this machine: "),
        ("deviceNodes: [{path: /dev/x, hostPath: /etc}]", "/etc is not a device on this machine"),
        ("deviceNodes: [{path: /x, hostPath: /dev/zero}]", "/x is not below /dev"),
        ("mounts: [{hostPath: /a, containerPath: /b, type: tmpfs}]", "/b is a mount other than a bind mount"),
        ("mounts: [{hostPath: a, containerPath: /b}]", "the path of a mount is not absolute: `a`"),
    ];
    for (edits, expected) in cases {
        let text = format!(
            "cdiVersion: 0.8.0\nkind: v.com/c\ndevices:\n- name: d\n  containerEdits:\n    {edits}\n"
        );
        let (_dir, devices) = machine(&[("etc/c.yaml", &text)]);
        let error = devices.check(&wanted(&["v.com/c=d"])).unwrap_err().to_string();
        assert!(
            error.starts_with("device \"v.com/c=d\" of ") && error.contains(expected),
            "{edits}: {error}"
        );
    }
}

/// A-094
#[test]
fn a_094_broken_specifications_are_named() {
    let deep = "[".repeat(100_000);
    let cases =
        ["", "kind: x", "kind: [", "\u{0}", &deep, "cdiVersion: 1\nkind: nope\n", "a: &a [*a, *a]", GPU];
    for (at, text) in cases.iter().enumerate() {
        for end in ["yaml", "json"] {
            let broken = at + 1 < cases.len() || end == "json";
            let (_dir, devices) = machine(&[(&format!("etc/broken.{end}"), *text)]);
            let error = devices.find("v.com/c", true).unwrap_err().to_string();
            let named = error.contains(&format!("broken.{end} was not understood: "));
            assert_eq!(named, broken, "{at} {end}: {error}");
        }
    }
}
