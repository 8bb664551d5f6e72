//! What the upper directory holds after a step.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::{Duration, SystemTime};

use rbuild_runtime::ExitStatus;

use crate::common::{Bed, Test};
use crate::sandbox::bind_of;

pub(crate) const TESTS: &[Test] = &[
    ("whiteouts_and_opaque_directories", whiteouts_and_opaque_directories),
    ("a_079_stubs_are_removed", stubs_are_removed),
    ("a_079_parent_times_are_restored", parent_times_are_restored),
    ("a_079_filled_stubs_stay", filled_stubs_stay),
    ("a_079_failed_steps_leave_no_stubs", failed_steps_leave_no_stubs),
    ("a_079_working_directories_on_the_way_to_a_mount", working_directories_on_the_way),
    ("sixty_layers", sixty_layers),
    ("repeated_layers", repeated_layers),
    ("stub_layer", stub_layer),
    ("no_layer_below", no_layer_below),
    ("odd_paths", odd_paths),
    ("plain_copies", plain_copies),
];

const SYSTEM: [&str; 3] = ["dev/", "proc/", "sys/"];

fn whiteouts_and_opaque_directories() {
    let bed = Bed::new();
    bed.write("base/d/old", "");
    bed.write("base/gone", "");
    bed.output("rm /gone; rm -r /d; mkdir /d; echo new > /d/new");
    let gone = fs::symlink_metadata(bed.path("upper/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 8];
    let n = rustix::fs::getxattr(bed.path("upper/d"), "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..n], b"y");
    assert_eq!(fs::read_to_string(bed.path("upper/d/new")).unwrap(), "new\n");
}

fn stubs_are_removed() {
    let bed = Bed::new();
    bed.write("source/f", "x");
    let mut spec = bed.sh("cat /etc/hosts /n/e/w/f /etc/one > /dev/null");
    spec.mounts = vec![
        bind_of("/n/e/w", bed.path("source"), "", true),
        bind_of("/etc/one", bed.path("source/f"), "", true),
    ];
    bed.output_of(spec);
    assert_eq!(bed.upper(), ["dev/", "etc/", "proc/", "sys/"]);
}

fn parent_times_are_restored() {
    let bed = Bed::new();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let set = |path: &str| fs::File::open(bed.path(path)).unwrap().set_modified(old).unwrap();
    let mtime = |path: &str| fs::metadata(bed.path(path)).unwrap().modified().unwrap();
    for name in SYSTEM {
        fs::create_dir_all(bed.path("base").join(name)).unwrap();
    }
    set("base/etc");
    set("base");
    let mut spec = bed.sh("true");
    bed.write("source/f", "x");
    spec.mounts = vec![bind_of("/top", bed.path("source"), "", true)];
    bed.output_of(spec);
    assert_eq!(mtime("upper/etc"), old);
    // A change of the step's own is not covered up.
    bed.fresh_upper();
    bed.output("sleep 0.1; touch /etc/mine");
    assert!(mtime("upper/etc") > old);
    assert!(bed.path("upper/etc/mine").exists() && !bed.path("upper/etc/hosts").exists());
}

fn filled_stubs_stay() {
    let bed = Bed::new();
    bed.write("source/f", "x");
    let mut spec = bed.sh("echo kept > /a/kept");
    spec.mounts = vec![bind_of("/a/b/c", bed.path("source"), "", true)];
    bed.output_of(spec);
    let upper = bed.upper();
    assert!(upper.contains(&"a/kept".to_owned()) && !upper.contains(&"a/b/".to_owned()), "{upper:?}");
}

fn failed_steps_leave_no_stubs() {
    let bed = Bed::new();
    bed.write("source/f", "x");
    let mut spec = bed.spec(&["/no/such/program"]);
    spec.mounts = vec![bind_of("/n/e/w", bed.path("source"), "", true)];
    assert!(bed.run(spec).is_err());
    assert_eq!(bed.upper(), ["dev/", "etc/", "proc/", "sys/"]);
}

fn working_directories_on_the_way() {
    for (cwd, target, left) in [
        ("/gone/deep", "/other", &["gone/", "gone/deep/"][..]),
        ("/gone/deep", "/gone/deep/x", &[]),
        ("/gone//deep/.", "/gone/deep", &[]),
        ("/gone/deep", "/gone", &["gone/", "gone/deep/"]),
        ("/gone/deep", "/gone/by/x", &["gone/", "gone/deep/"]),
    ] {
        let bed = Bed::new();
        bed.write("source/f", "x");
        let mut spec = bed.sh("true");
        spec.cwd = cwd.to_owned();
        spec.mounts = vec![bind_of(target, bed.path("source"), "", false)];
        bed.output_of(spec);
        let found = bed.upper();
        let found: Vec<&String> = found.iter().filter(|path| path.starts_with("gone")).collect();
        assert_eq!(found, left, "{cwd} {target}");
    }
}

fn sixty_layers() {
    let bed = Bed::new();
    let mut spec = bed.sh("cat /n; ls /files | wc -l");
    for i in 0..60 {
        // Long names: the option string of mount(2) would not hold them.
        let layer = format!("layer-{i:03}-{}", "x".repeat(150));
        bed.write(&format!("{layer}/n"), &i.to_string());
        bed.write(&format!("{layer}/files/{i}"), "");
        spec.lower.push(bed.path(&layer));
    }
    assert_eq!(bed.output_of(spec), "5960\n");
}

fn repeated_layers() {
    let bed = Bed::new();
    bed.write("a/f", "a");
    bed.write("b/f", "b");
    let mut spec = bed.sh("cat /f");
    spec.lower.extend(["a", "b", "a", "a"].map(|l| bed.path(l)));
    assert_eq!(bed.output_of(spec), "a");
}

fn stub_layer() {
    let bed = Bed::new();
    fs::create_dir(bed.path("stubs")).unwrap();
    rbuild_runtime::fill_stub_layer(&bed.path("stubs")).unwrap();
    for name in SYSTEM {
        fs::create_dir_all(bed.path("base").join(name)).unwrap();
    }
    let run = |script: &str| {
        let mut spec = bed.sh(script);
        spec.lower.insert(0, bed.path("stubs"));
        bed.output_of(spec)
    };
    assert_eq!(
        run("cat /etc/hosts; ls /etc | tr '\\n' ' '"),
        "127.0.0.1 localhost step\ngroup hosts passwd resolv.conf "
    );
    assert_eq!(bed.upper(), [""; 0]);
    // An image that has done away with the directory, or hides what is below it.
    bed.fresh_upper();
    fs::remove_dir_all(bed.path("base/etc")).unwrap();
    std::os::unix::fs::symlink("/usr/etc", bed.path("base/etc")).unwrap();
    assert_eq!(run("cat /usr/etc/hosts"), "127.0.0.1 localhost step\n");
    assert_eq!(bed.upper(), [""; 0]);
}

fn no_layer_below() {
    let bed = Bed::new();
    fs::remove_dir(bed.path("upper")).unwrap();
    fs::rename(bed.path("base"), bed.path("upper")).unwrap();
    fs::remove_dir_all(bed.path("upper/etc")).unwrap();
    let mut spec = bed.sh("cat /etc/hosts; echo x > /x");
    spec.lower.clear();
    assert_eq!(bed.output_of(spec), "127.0.0.1 localhost step\n");
    assert!(bed.path("upper/x").exists() && !bed.path("upper/etc").exists());
    assert!(SYSTEM.iter().all(|d| bed.path("upper").join(d).is_dir()));
    // Nothing to execute at all.
    let bed = Bed::new();
    let mut spec = bed.spec(&["/bin/sh"]);
    spec.lower.clear();
    assert_eq!(bed.run(spec).err().unwrap().exit_code(), Some(127));
    assert_eq!(bed.upper(), SYSTEM);
}

fn odd_paths() {
    let bed = Bed::new();
    let odd = ["a:b", "c,d", "e\\f", "g h", "+", "ü"];
    let mut spec = bed.sh("cat /a:b /c,d '/e\\f' '/g h' /+ /ü; echo made > /made");
    for name in odd {
        bed.write(&format!("{name}/{name}"), ".");
        spec.lower.push(bed.path(name));
    }
    for (from, to) in [("upper", "up,p:e\\r"), ("work", "wo,r:k\\")] {
        fs::rename(bed.path(from), bed.path(to)).unwrap();
    }
    (spec.upper, spec.work) = (bed.path("up,p:e\\r"), bed.path("wo,r:k\\"));
    assert_eq!(bed.output_of(spec), "......");
    assert!(bed.path("up,p:e\\r/made").exists());
}

fn plain_copies() {
    let bed = Bed::new();
    bed.write("base/big/file", "content");
    let outcome = bed.run(bed.sh("chmod 600 /big/file; mv /big /moved")).unwrap().outcome;
    assert_eq!(outcome.status, ExitStatus::Exited(0));
    // Whole data after a change of metadata alone, and no redirect for a renamed directory.
    assert_eq!(fs::read_to_string(bed.path("upper/moved/file")).unwrap(), "content");
    for name in ["trusted.overlay.redirect", "trusted.overlay.metacopy"] {
        for path in ["upper/moved", "upper/moved/file"] {
            assert!(rustix::fs::getxattr(bed.path(path), name, &mut [0u8; 64]).is_err(), "{name} on {path}");
        }
    }
}
