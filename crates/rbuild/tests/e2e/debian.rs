//! The example: apt and gcc on a Debian base, the program on busybox, run by crun.

use crate::context::{TestContext, busybox, debian, installed, run, skip, workspace};
use crate::image::Image;
use serde_json::Value;
use std::process::Command;

#[test]
fn the_two_stage_c_program() {
    const TEST: &str = "the_two_stage_c_program";
    for program in ["mmdebstrap", "skopeo", "umoci", "crun"] {
        if !installed(program) {
            return skip(TEST, &format!("{program} is not installed"));
        }
    }
    let context = TestContext::with_base(debian());
    let example = workspace().join("testdata/example/hello-c");
    let mut copy = Command::new("cp");
    copy.arg("-rT").arg(&example).arg(context.path("context"));
    run(copy, b"").ok();
    let (debian, busybox) = (debian().display(), busybox().display());
    let bases = [format!("debian=oci-layout://{debian}"), format!("busybox=oci-layout://{busybox}")];
    let args = ["-t", "hello-c:1.0", "--build-context", &bases[0], "--build-context", &bases[1]];
    let first = context.build(&args).ok();
    assert_eq!(first.executed().len(), 5, "{}", first.stderr);
    assert_eq!(hello(&context), "Hello from a container, world! (uid 65534)\n");

    let mut skopeo = Command::new("skopeo");
    skopeo.arg("inspect").arg(format!("oci:{}:docker.io/library/hello-c:1.0", context.store().display()));
    let inspected: Value = serde_json::from_str(&run(skopeo, b"").ok().stdout).unwrap();
    assert_eq!(inspected["Digest"], Image::of(&context, "hello-c:1.0").digest.as_str());

    assert_eq!(context.build(&args).ok().steps().0, 0, "a second build executes nothing");

    let source = std::fs::read_to_string(context.in_context("src/greet.c")).unwrap();
    context.file("src/greet.c", source.replace("%s, %s!", "%s again, %s!"));
    let changed = context.build(&args).ok();
    let executed = changed.executed();
    assert_eq!(executed.len(), 3, "{executed:?}");
    for step in ["COPY src/", "gcc -O2", "COPY --from=build"] {
        assert!(executed.iter().any(|name| name.contains(step)), "{step} in {executed:?}");
    }
    assert_eq!(hello(&context), "Hello from a container again, world! (uid 65534)\n");
    context.assert_nothing_left();
}

/// Unpacks the image and runs it.
fn hello(context: &TestContext) -> String {
    let bundle = tempfile::tempdir_in(context.path(".")).unwrap();
    let unpacked = bundle.path().join("unpacked");
    let mut umoci = Command::new("umoci");
    umoci
        .args(["unpack", "--image"])
        .arg(format!("{}:docker.io/library/hello-c:1.0", context.store().display()));
    run(
        {
            umoci.arg(&unpacked);
            umoci
        },
        b"",
    )
    .ok();
    let config = unpacked.join("config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    std::fs::write(&config, spec.to_string()).unwrap();
    // crun refuses machines that have cgroup v1 and v2 side by side; it sees none here.
    let script = "umount -R /sys/fs/cgroup 2>/dev/null; mount -t tmpfs none /sys/fs/cgroup
        exec crun --root \"$1/state\" --cgroup-manager=disabled run --bundle \"$1/unpacked\" \"$2\"";
    let mut crun = Command::new("unshare");
    crun.args(["--mount", "bash", "-c", script, "-"]).arg(bundle.path());
    crun.arg(format!("hello-{}", std::process::id())).stdin(std::process::Stdio::null());
    run(crun, b"").ok().stdout
}
