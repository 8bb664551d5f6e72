//! RUN --device (A-094).

use crate::bed::{Bed, bed};
use std::fs;

const SPEC: &str = r#"{"cdiVersion":"0.6.0","kind":"vendor1.com/device","devices":[
    {"name":"foo","containerEdits":{
        "env":["FOO=injected"],
        "deviceNodes":[{"path":"/dev/rbuild0","hostPath":"/dev/zero"},{"path":"/dev/dir/null","hostPath":"/dev/null"}],
        "mounts":[{"hostPath":"HOST","containerPath":"/lib/vendor","options":["ro"]}]}},
    {"name":"bar","annotations":{"org.mobyproject.buildkit.device.autoallow":"true"},"containerEdits":{"env":["BAR=1"]}},
    {"name":"hook","containerEdits":{"hooks":[{"hookName":"createContainer","path":"/bin/true"}]}}]}"#;

fn machine(bed: &Bed) -> String {
    let dir = bed.path("cdi");
    fs::create_dir_all(&dir).unwrap();
    fs::create_dir_all(bed.path("vendor")).unwrap();
    fs::write(bed.path("vendor/file"), "driver").unwrap();
    let host = bed.path("vendor");
    fs::write(dir.join("one.json"), SPEC.replace("HOST", host.to_str().unwrap())).unwrap();
    let yaml = "cdiVersion: 0.3.0\nkind: vendor2.com/device\ndevices:\n- name: x\n  containerEdits: {env: [X=yaml]}\n";
    fs::write(dir.join("two.yaml"), yaml).unwrap();
    dir.display().to_string()
}

/// A-094
#[test]
fn a_094_a_step_gets_devices_variables_and_mounts() {
    let Some(bed) = bed("a_094_a_step_gets_devices_variables_and_mounts") else { return };
    let dir = machine(&bed);
    let args = ["--cdi-spec-dir", dir.as_str(), "--allow", "device=vendor1.com/device=foo"];
    let step = "RUN --device=vendor1.com/device=foo,required --device=vendor3.com/none \
                test -c /dev/rbuild0 && dd if=/dev/rbuild0 bs=4 count=1 of=/four 2>/dev/null && \
                echo x > /dev/dir/null && echo $FOO $(cat /lib/vendor/file) >/said && ! touch /lib/vendor/new";
    let files = bed.files(step, &args);
    assert_eq!(fs::read(files.join("four")).unwrap(), [0; 4]);
    assert_eq!(fs::read_to_string(files.join("said")).unwrap(), "injected driver\n");
    assert!(!files.join("lib/vendor").exists() && !files.join("dev/rbuild0").exists());
    // The next step has none of it, and the flag is a part of the key.
    let next = format!("{step}\nRUN test ! -e /dev/rbuild0 && test -z \"$FOO\"");
    let built = bed.build(&next, &args).succeeded();
    assert_eq!(built.executed(), 1);
    let any = ["--cdi-spec-dir", dir.as_str(), "--allow", "device"];
    let both = "RUN --device=vendor2.com/device --device=vendor1.com/device=bar test $X$BAR = yaml1";
    bed.build(both, &any).succeeded();
    let warned = bed.build("RUN --device=vendor3.com/none true", &any).succeeded();
    assert!(warned.said.contains("optional device vendor3.com/none is not registered"), "{}", warned.said);
}

/// A-094
#[test]
fn a_094_devices_have_to_be_there_and_allowed() {
    let Some(bed) = bed("a_094_devices_have_to_be_there_and_allowed") else { return };
    let dir = machine(&bed);
    let cdi = ["--cdi-spec-dir", dir.as_str()];
    let refusal = "device vendor1.com/device=foo is requested by the build but not allowed";
    bed.build("RUN --device=vendor1.com/device=foo true", &cdi).failed_with(refusal);
    bed.build("RUN --device=vendor1.com/device=bar test $BAR = 1", &cdi).succeeded();
    let allow = [&cdi[..], &["--allow", "device"]].concat();
    let missing = bed.build("RUN true\nRUN --device=v.com/none,required true", &allow);
    assert!(missing.said.contains(":5:"), "{}", missing.said);
    missing.failed_with("required device \"v.com/none\" is not registered");
    bed.build("RUN --device=nonsense true", &allow).failed_with("invalid device \"nonsense\"");
    bed.build("RUN --device=vendor1.com/device=hook true", &allow).failed_with("it needs hooks");
    bed.build("RUN true", &["--allow", "device=a,alias=b"]).failed_with("invalid entitlement");
    assert_eq!(bed.command("RUN --device=v.com/n,required true", &allow).status().unwrap().code(), Some(2));
}
