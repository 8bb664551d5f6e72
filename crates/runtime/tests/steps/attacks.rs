//! What a hostile image or step may try (wants.md 4.1 C and D).

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};

use rbuild_runtime::{Launcher, MountKind, RuntimeError, StepIo};

use crate::common::{Bed, Test, eventually};
use crate::sandbox::{bind_of, mount};

pub(crate) const TESTS: &[Test] = &[
    ("cve_2024_21626_no_descriptor_leaks", no_descriptor_leaks),
    ("cve_2024_21626_workdir_through_proc", workdir_through_proc),
    ("cve_2024_23652_stub_swapped_for_link", stub_swapped_for_link),
    ("cve_2021_30465_target_links_stay_inside", target_links_stay_inside),
    ("cve_2024_1753_source_links_stay_inside", source_links_stay_inside),
    ("cve_2019_16884_nothing_over_proc", nothing_over_proc),
    ("cve_2019_19921_system_directories_must_be_real", system_directories_must_be_real),
    ("cve_2019_5736_executable_is_readonly", executable_is_readonly),
    ("resolv_conf_links", resolv_conf_links),
    ("passwd_that_is_no_file", passwd_that_is_no_file),
    ("device_nodes_are_dead", device_nodes_are_dead),
    ("no_new_mounts", no_new_mounts),
    ("session_keyring_is_new", session_keyring_is_new),
];

fn no_descriptor_leaks() {
    let bed = Bed::new();
    // Descriptors of the builder that are inherited on exec, as a careless library might leave them.
    let leaks: Vec<fs::File> = (0..64).map(|_| fs::File::open("/").unwrap()).collect();
    for leak in &leaks {
        rustix::io::fcntl_setfd(leak, rustix::io::FdFlags::empty()).unwrap();
    }
    // `ls` has its own descriptor of the directory it lists.
    assert_eq!(bed.output_of(bed.spec(&["ls", "/proc/self/fd"])), "0\n1\n2\n3\n");
    bed.fresh_upper();
    // as under runc, a pipe at its end, which is the user's.
    let mut spec = bed.sh("readlink /proc/self/fd/0; cat /dev/stdin; stat -Lc '%F %u' /proc/self/fd/0");
    spec.user = "app".to_owned();
    let input = bed.output_of(spec);
    assert!(input.starts_with("pipe:[") && input.ends_with("]\nfifo 1000\n"), "{input}");
}

fn workdir_through_proc() {
    let host = fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&host, rustix::io::FdFlags::empty()).unwrap();
    let mut paths: Vec<String> = (3..65).map(|fd| format!("/proc/self/fd/{fd}")).collect();
    paths.extend([host.as_raw_fd().to_string(), "0/../..".to_owned()].map(|p| format!("/proc/self/fd/{p}")));
    paths.extend(["/proc/self/cwd", "/proc/1/root", "/proc/thread-self/root/etc"].map(str::to_owned));
    let bed = Bed::new();
    symlink("/proc/self/fd/7", bed.path("base/link")).unwrap();
    paths.push("/link".to_owned());
    for path in paths {
        let mut spec = bed.sh("pwd; ls");
        spec.cwd.clone_from(&path);
        let ran = bed.run(spec);
        assert!(ran.is_err(), "{path}: {}", ran.ok().unwrap().out);
        bed.fresh_upper();
    }
}

fn stub_swapped_for_link() {
    let bed = Bed::new();
    let canary = bed.path("canary");
    let inside = format!("/base{}", canary.display());
    bed.write(&format!("{}/file", &inside[1..]), "inner");
    // The targets are mount points and cannot be removed; but the directories they were made in can be moved away
    // and replaced, so that the same path then leads elsewhere.
    let script = format!(
        "mv /stub/a /stub/b && ln -s {0} /stub/a; ls -d /stub/b/target; mv /x /y && mkdir /x && echo mine > /x/file; true",
        canary.display()
    );
    let mut spec = bed.sh(&script);
    bed.write("source/f", "");
    spec.mounts = vec![
        bind_of("/stub/a/target", bed.path("source"), "", true),
        bind_of("/x/file", bed.path("source/f"), "", true),
    ];
    bed.output_of(spec);
    bed.assert_canary();
    assert_eq!(fs::read_to_string(bed.path("upper/x/file")).unwrap(), "mine\n");
    assert!(fs::symlink_metadata(bed.path("upper/stub/a")).unwrap().is_symlink());
}

fn target_links_stay_inside() {
    let bed = Bed::new();
    bed.write("source/f", "mounted");
    symlink("../../../../../../../../..", bed.path("base/up")).unwrap();
    symlink("/", bed.path("base/abs")).unwrap();
    let canary = bed.path("canary");
    for via in ["up", "abs"] {
        let mut spec = bed.sh(&format!("cat {}/new/f", canary.display()));
        spec.mounts = vec![bind_of(&format!("/{via}{}/new", canary.display()), bed.path("source"), "", true)];
        assert_eq!(bed.output_of(spec), "mounted", "{via}");
        bed.assert_canary();
        bed.fresh_upper();
    }
}

fn source_links_stay_inside() {
    let bed = Bed::new();
    bed.write("stage/etc/secret", "of the stage");
    bed.write("canary/file", "canary");
    symlink("/", bed.path("stage/root")).unwrap();
    symlink(bed.path("canary"), bed.path("stage/out")).unwrap();
    symlink("../../../../../..", bed.path("stage/up")).unwrap();
    let stage = bed.path("stage");
    for subpath in ["root", "up", "/../../..", "root/../up"] {
        let mut spec = bed.sh("cat /m/etc/secret; ls /m | wc -l");
        spec.mounts = vec![bind_of("/m", stage.clone(), subpath, true)];
        assert_eq!(bed.output_of(spec), "of the stage4\n", "{subpath}");
        bed.fresh_upper();
    }
    let mut spec = bed.sh("true");
    spec.mounts = vec![bind_of("/m", stage.clone(), "out", true)];
    assert!(bed.run(spec).is_err());
    bed.fresh_upper();
    let mut spec = bed.sh("true");
    let lower = vec![bed.path("base"), stage];
    spec.mounts =
        vec![mount("/m", MountKind::Overlay { lower, scratch: None, subpath: "out".to_owned() }, true)];
    assert!(bed.run(spec).is_err());
    bed.assert_canary();
}

fn nothing_over_proc() {
    let bed = Bed::new();
    bed.write("source/f", "");
    symlink("/proc", bed.path("base/link")).unwrap();
    symlink("/", bed.path("base/top")).unwrap();
    for target in
        ["/proc", "/proc/self", "/proc/sys", "/sys", "/sys/fs", "/link", "/link/1/attr", "/top", "/tmp/.."]
    {
        let mut spec = bed.sh("true");
        spec.mounts = vec![bind_of(target, bed.path("source"), "", true)];
        let error = bed.run(spec).err().unwrap_or_else(|| panic!("{target} was accepted"));
        assert!(matches!(error, RuntimeError::Refused { .. }), "{target}: {error}");
        bed.fresh_upper();
    }
}

fn system_directories_must_be_real() {
    for name in ["proc", "sys"] {
        let bed = Bed::new();
        symlink("/tmp", bed.path("base").join(name)).unwrap();
        let error = bed.run(bed.sh("true")).err().unwrap().to_string();
        assert!(error.contains(&format!("/{name}")) && error.contains("not a link"), "{error}");
    }
}

fn executable_is_readonly() {
    let bed = Bed::new();
    let init = bed.path("init");
    fs::copy("/proc/self/exe", &init).unwrap();
    let launcher = Launcher::with_executable(&init).unwrap();
    let step = launcher.spawn(&bed.sh("sleep 1000"), StepIo::default()).unwrap();
    let exe = format!("/proc/{}/exe", step.pid());
    eventually("the supervisor runs", || {
        fs::metadata(&exe).is_ok_and(|m| m.ino() == fs::metadata(&init).unwrap().ino())
    });
    // The attack: keep the file that is being executed, and write to it once it is not (until then: ETXTBSY).
    let held = fs::File::open(&exe).unwrap();
    drop(step);
    let again = format!("/proc/self/fd/{}", held.as_raw_fd());
    let write =
        |path: &str| fs::OpenOptions::new().write(true).open(path).err().and_then(|e| e.raw_os_error());
    eventually("read-only", || write(&again) == Some(libc::EROFS));
    assert_eq!(write(init.to_str().unwrap()), None);
}

fn resolv_conf_links() {
    let bed = Bed::new();
    let canary = bed.path("canary/new");
    let cases =
        ["/run/systemd/resolve/stub-resolv.conf", "../../../../../../etc/real", canary.to_str().unwrap()];
    for link in cases {
        let at = bed.path("base/etc/resolv.conf");
        let _ = fs::remove_file(&at);
        symlink(link, &at).unwrap();
        assert_eq!(bed.output("cat /etc/resolv.conf"), "nameserver 192.0.2.1\n", "{link}");
        bed.assert_canary();
        // What had to be made for the link's sake is gone again.
        let left: Vec<_> = bed
            .upper()
            .into_iter()
            .filter(|p| !["proc/", "sys/", "dev/", "etc/", "tmp/"].contains(&p.as_str()))
            .collect();
        assert_eq!(left, [""; 0], "{link}");
        bed.fresh_upper();
    }
}

fn passwd_that_is_no_file() {
    type Make = fn(&std::path::Path);
    let cases: [(&str, Make); 3] = [
        ("not a regular file", |p| {
            rustix::fs::mkfifoat(rustix::fs::CWD, p, rustix::fs::Mode::RWXU).unwrap();
        }),
        ("not a regular file", |p| {
            symlink("/dev", p).map(|()| fs::create_dir(p.parent().unwrap().join("../dev")).unwrap()).unwrap()
        }),
        ("larger than 10 MiB", |p| fs::File::create(p).unwrap().set_len((10 << 20) + 1).unwrap()),
    ];
    for (want, make) in cases {
        let bed = Bed::new();
        let path = bed.path("base/etc/passwd");
        fs::remove_file(&path).unwrap();
        make(&path);
        let error = bed.run(bed.sh("true")).err().unwrap().to_string();
        assert!(error.contains("/etc/passwd") && error.contains(want), "{error}");
    }
    // A link inside the root is fine, also an absolute one.
    let bed = Bed::new();
    fs::rename(bed.path("base/etc/passwd"), bed.path("base/root/pw")).unwrap();
    symlink("/root/pw", bed.path("base/etc/passwd")).unwrap();
    let mut spec = bed.sh("id -u");
    spec.user = "app".to_owned();
    assert_eq!(bed.output_of(spec), "1000\n");
}

fn device_nodes_are_dead() {
    let bed = Bed::new();
    bed.write("source/f", "");
    let script = "for d in / /dev /dev/shm /tmp /m /b; do mknod $d/zero2 c 1 5 && head -c 1 $d/zero2 && echo $d opened; done; rm /b/zero2; true";
    let mut spec = bed.sh(script);
    spec.mounts = vec![
        mount("/m", MountKind::Tmpfs { size: None, mode: 0o755 }, false),
        bind_of("/b", bed.path("source"), "", false),
    ];
    let ran = bed.run(spec).unwrap();
    assert!(!ran.out.contains("opened"), "{}", ran.out);
    assert!(ran.err.contains("zero2: Permission denied"), "{}", ran.err);
}

fn no_new_mounts() {
    let bed = Bed::new();
    let script = "mount -t tmpfs x /tmp 2>/dev/null && echo mounted; mount -o remount,rw /proc/sys 2>/dev/null && echo remounted
        umount /proc/kcore 2>/dev/null && echo unmasked; umount /etc/hosts 2>/dev/null && echo unmounted; echo done";
    assert_eq!(bed.output(script), "done\n");
}

fn session_keyring_is_new() {
    let bed = Bed::new();
    // Its own keys are covered up; without the cover the builder's session keyring would be found by number.
    assert_eq!(bed.output("cat /proc/keys | wc -l"), "0\n");
}
