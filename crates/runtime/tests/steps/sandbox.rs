//! What a step sees and may do.

use std::path::PathBuf;

use rbuild_runtime::{MountKind, MountSpec, Network, Scratch};

use crate::common::{Bed, Test};

pub(crate) const TESTS: &[Test] = &[
    ("a_078_status_of_root", status_of_root),
    ("a_078_status_of_user", status_of_user),
    ("a_078_hostname_hosts_resolv_conf", hostname_hosts_resolv_conf),
    ("a_078_devices", devices),
    ("a_078_dev_may_be_a_link", dev_may_be_a_link),
    ("a_078_masked_and_readonly_paths", masked_and_readonly_paths),
    ("a_092_network_none", network_none),
    ("a_084_bind", bind),
    ("a_084_overlay_mounts", overlay_mounts),
    ("a_086_tmpfs", tmpfs),
    ("a_093_privileged_steps_may_do_everything", privileged_steps_may_do_everything),
    ("a_091_nested_mounts_in_order", nested_mounts),
    ("a_080_shm_size", shm_size),
    ("namespaces_are_new", namespaces_are_new),
    ("ignored_signals_do_not_reach_the_step", ignored_signals),
    ("host_mounts_are_gone", host_mounts_are_gone),
];

pub(crate) fn mount(target: &str, kind: MountKind, readonly: bool) -> MountSpec {
    MountSpec { target: target.to_owned(), kind, readonly }
}

pub(crate) fn bind_of(target: &str, source: PathBuf, subpath: &str, readonly: bool) -> MountSpec {
    mount(target, MountKind::Bind { source, subpath: subpath.to_owned() }, readonly)
}

fn status(user: &str) -> String {
    let bed = Bed::new();
    let mut spec = bed.spec(&[
        "grep",
        "-E",
        "^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|Sig|Shd|NSpid|Umask)",
        "/proc/self/status",
    ]);
    spec.user = user.to_owned();
    bed.output_of(spec).replace('\t', " ").lines().map(|l| format!("{}\n", l.trim_end())).collect()
}

/// Capabilities of `wanted` that this machine lets root have.
fn available(wanted: u64) -> String {
    let own = rustix::thread::capabilities(None::<rustix::process::Pid>).unwrap().permitted.bits();
    format!("{:016x}", wanted & own)
}

fn status_of_root() {
    let caps = available(rbuild_runtime::DEFAULT_CAPABILITIES);
    let status = status("");
    for line in [
        "Umask: 0022",
        "Uid: 0 0 0 0",
        "Gid: 0 0 0 0",
        "Groups: 0",
        "NSpid: 1",
        "SigBlk: 0000000000000000",
        "SigIgn: 0000000000000000",
        "CapInh: 0000000000000000",
        &format!("CapPrm: {caps}"),
        &format!("CapEff: {caps}"),
        &format!("CapBnd: {caps}"),
        "CapAmb: 0000000000000000",
        "NoNewPrivs: 0",
        "Seccomp: 2",
    ] {
        assert!(status.lines().any(|l| l == line), "{line} is missing in\n{status}");
    }
}

fn status_of_user() {
    let caps = available(rbuild_runtime::DEFAULT_CAPABILITIES);
    let status = status("app");
    for line in [
        "Uid: 1000 1000 1000 1000",
        "Gid: 1001 1001 1001 1001",
        "Groups: 1001 2000",
        "CapInh: 0000000000000000",
        "CapPrm: 0000000000000000",
        "CapEff: 0000000000000000",
        &format!("CapBnd: {caps}"),
        "CapAmb: 0000000000000000",
    ] {
        assert!(status.lines().any(|l| l == line), "{line} is missing in\n{status}");
    }
}

fn hostname_hosts_resolv_conf() {
    let bed = Bed::new();
    let mut spec = bed.sh("hostname; cat /etc/hosts /etc/resolv.conf; echo x >> /etc/hosts || echo refused");
    spec.hostname = "a-host".to_owned();
    let want = "a-host\n127.0.0.1 localhost step\nnameserver 192.0.2.1\nrefused\n";
    assert_eq!(bed.output_of(spec), want);
}

fn devices() {
    let bed = Bed::new();
    let script = "
        stat -c '%n %F %t:%T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty
        for l in fd stdin stdout stderr ptmx; do echo $l $(readlink /dev/$l); done
        stat -c '%n %a' /dev /dev/shm /dev/mqueue /dev/pts /dev/pts/ptmx
        head -c 4 /dev/zero | wc -c; echo x > /dev/null && head -c 3 /dev/urandom | wc -c
        echo x > /dev/full || echo full; ls /dev | sort | tr '\\n' ' '";
    let want = "/dev/null character special file 1:3 666\n/dev/zero character special file 1:5 666\n\
        /dev/full character special file 1:7 666\n/dev/random character special file 1:8 666\n\
        /dev/urandom character special file 1:9 666\n/dev/tty character special file 5:0 666\n\
        fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\nstderr /proc/self/fd/2\nptmx pts/ptmx\n\
        /dev 755\n/dev/shm 1777\n/dev/mqueue 1777\n/dev/pts 755\n/dev/pts/ptmx 666\n4\n3\nfull\n\
        fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ";
    assert_eq!(bed.output(script), want);
}

fn dev_may_be_a_link() {
    let bed = Bed::new();
    std::fs::remove_dir_all(bed.path("base/dev")).ok();
    std::fs::create_dir(bed.path("base/devices")).unwrap();
    std::os::unix::fs::symlink("/devices", bed.path("base/dev")).unwrap();
    assert_eq!(bed.output("echo x > /dev/null; readlink /dev; ls /devices/zero"), "/devices\n/devices/zero\n");
    for to in ["/proc", "/sys/kernel", "/proc/self/cwd", "/bin/sh", "/nowhere"] {
        std::fs::remove_file(bed.path("base/dev")).unwrap();
        std::os::unix::fs::symlink(to, bed.path("base/dev")).unwrap();
        bed.fresh_upper();
        let refused = bed.run(bed.sh("true")).err().expect(to).to_string();
        assert!(refused.contains("/dev"), "{to}: {refused}");
    }
}

fn masked_and_readonly_paths() {
    let bed = Bed::new();
    let script = "
        for f in kcore keys timer_list sched_debug interrupts; do
            [ -e /proc/$f ] && [ -n \"$(head -c 1 /proc/$f | tr '\\0' 0)\" ] && echo readable $f; done
        for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap; do
            [ -e $d ] && [ -n \"$(ls $d)\" ] && echo visible $d; touch $d/x 2>/dev/null && echo writable $d; done
        echo h > /proc/sysrq-trigger && echo sysrq
        echo x > /proc/sys/kernel/domainname && echo sysctl
        for d in bus fs irq sys; do grep -q \"^proc /proc/$d proc ro,\" /proc/self/mounts || echo not ro $d; done
        touch /sys/x && echo sys; grep -q '^sysfs /sys sysfs ro,nosuid,nodev,noexec' /proc/mounts || echo no sysfs
        echo done";
    assert_eq!(bed.output(script), "done\n");
}

fn network_none() {
    let bed = Bed::new();
    let mut spec =
        bed.sh("ls /sys/class/net; ip -o link show lo | grep -o 'LOOPBACK,UP'; ip route; ip -o addr | wc -l");
    spec.network = Network::None;
    let out = bed.output_of(spec);
    assert!(out.starts_with("lo\nLOOPBACK,UP\n"), "{out}");
    assert!(!out.contains("default"), "{out}");
    // Without it, the step is where the builder is.
    bed.fresh_upper();
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(bed.output("readlink /proc/self/ns/net").trim_end(), ours.to_str().unwrap());
}

fn bind() {
    let bed = Bed::new();
    bed.write("source/dir/file", "content");
    let mut spec = bed.sh(
        "cat /ro/file /one; touch /ro/x 2>&1; echo new > /rw/new; echo y > /one && echo changed; stat -c %F /one /ro",
    );
    spec.mounts = vec![
        bind_of("/ro", bed.path("source"), "dir", true),
        bind_of("/rw", bed.path("source/dir"), "", false),
        bind_of("/one", bed.path("source"), "dir/file", true),
    ];
    let want = "contentcontenttouch: /ro/x: Read-only file system\nregular file\ndirectory\n";
    assert_eq!(bed.output_of(spec), want);
    assert_eq!(std::fs::read_to_string(bed.path("source/dir/new")).unwrap(), "new\n");
    bed.fresh_upper();
    let mut spec = bed.sh("true");
    spec.mounts = vec![bind_of("/x", bed.path("missing"), "", true)];
    let error = bed.run(spec).err().unwrap().to_string();
    assert!(error.contains("cannot open mount source") && error.contains("missing: No such file"), "{error}");
}

fn overlay_mounts() {
    let bed = Bed::new();
    bed.write("l1/d/a", "1");
    bed.write("l2/d/b", "2");
    std::fs::create_dir(bed.path("su")).unwrap();
    std::fs::create_dir(bed.path("sw")).unwrap();
    let kind = |subpath: &str, scratch| MountKind::Overlay {
        lower: vec![bed.path("l1"), bed.path("l2")],
        scratch,
        subpath: subpath.to_owned(),
    };
    let scratch = Some(Scratch { upper: bed.path("su"), work: bed.path("sw") });
    let mut spec = bed.sh("cat /m/d/a /s/b; touch /m/x || echo ro; echo z > /w/z; cat /w/d/a /w/z");
    spec.mounts = vec![
        mount("/m", kind("", None), false),
        mount("/s", kind("/d", None), true),
        mount("/w", kind("", scratch), false),
    ];
    assert_eq!(bed.output_of(spec), "12ro\n1z\n");
    assert!(!bed.path("l2/z").exists() && bed.path("su/z").exists());
}

fn tmpfs() {
    let bed = Bed::new();
    let mut spec = bed.sh("stat -c %a /t/m; dd if=/dev/zero of=/t/m/f bs=4096 count=64 2>/dev/null || echo full; touch /r/x || echo ro");
    spec.mounts = vec![
        mount("/t/m", MountKind::Tmpfs { size: Some(64 << 10), mode: 0o1777 }, false),
        mount("/r", MountKind::Tmpfs { size: None, mode: 0o755 }, true),
    ];
    assert_eq!(bed.output_of(spec), "1777\nfull\nro\n");
    assert!(!bed.upper().iter().any(|p| p.starts_with("t/") || p.starts_with("r/")), "{:?}", bed.upper());
}

fn nested_mounts() {
    let bed = Bed::new();
    bed.write("source/file", "inner");
    let tmp = || MountKind::Tmpfs { size: None, mode: 0o755 };
    let mut spec = bed.sh("cat /a/b/c/file; ls /a/b; echo; ls /z");
    spec.mounts = vec![
        mount("/a", tmp(), false),
        bind_of("/a/b/c", bed.path("source"), "", true),
        bind_of("/z", bed.path("source"), "", true),
        mount("/z", tmp(), false),
    ];
    assert_eq!(bed.output_of(spec), "innerc\n\n");
}

fn shm_size() {
    let bed = Bed::new();
    let mut spec = bed.sh("df -k /dev/shm | grep -o ' 128 .* 0 '");
    spec.shm_size = 128 << 10;
    assert_eq!(bed.output_of(spec), " 128         0 \n");
}

fn namespaces_are_new() {
    let bed = Bed::new();
    let out = bed.output("for n in mnt pid ipc uts; do readlink /proc/self/ns/$n; done; cat /proc/self/sessionid; ls -d /proc/[0-9]* | wc -l");
    for (line, name) in out.lines().zip(["mnt", "pid", "ipc", "uts"]) {
        let ours = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert!(line.starts_with(name) && line != ours.to_str().unwrap(), "{line}");
    }
}

fn ignored_signals() {
    let bed = Bed::new();
    // This test program, as any Rust program, ignores SIGPIPE; a step must not.
    assert_eq!(bed.output("grep SigIgn /proc/self/status | tr '\\t' ' '"), "SigIgn: 0000000000000000\n");
}

fn host_mounts_are_gone() {
    let bed = Bed::new();
    let out = bed.output("cat /proc/self/mountinfo");
    let fine = |line: &str| {
        let point = line.split(' ').nth(4).unwrap();
        point == "/"
            || ["/proc", "/sys", "/dev", "/etc/hosts", "/etc/resolv.conf"]
                .iter()
                .any(|p| point.starts_with(p))
    };
    assert!(out.lines().all(fine), "{out}");
    assert!(!out.contains("shared:") && !out.contains("master:"), "{out}");
}

fn privileged_steps_may_do_everything() {
    let bed = Bed::new();
    // A node outside of /dev works, as does what is otherwise hidden or read-only.
    let script = "
        grep -E '^(Cap|Seccomp:)' /proc/self/status
        mknod /tmp/null c 1 3 && echo x >/tmp/null && echo device
        touch /sys/fs/cgroup && echo cgroup
        cat /proc/sys/kernel/printk >/tmp/old && cat /tmp/old >/proc/sys/kernel/printk && echo proc
        mount | grep -E ' on (/sys/firmware|/proc/(bus|fs|irq|sys|kcore|keys)) '; mount | grep -c ' on /sys type sysfs (rw'; mkdir /tmp/m && mount -t tmpfs none /tmp/m && echo mounted
        for d in kmsg cuse fuse kvm net/tun loop-control loop0 loop15; do stat -c '%n %F %t:%T %a' /dev/$d; done
        echo x >/dev/null && echo null";
    for user in ["", "app"] {
        bed.fresh_upper();
        let mut spec =
            bed.sh(if user.is_empty() { script } else { "grep -E '^(Cap|Seccomp:)' /proc/self/status" });
        spec.privileged = true;
        spec.user = user.to_owned();
        let out = bed.output_of(spec);
        assert!(out.contains("Seccomp:\t0"), "{out}");
        let caps = available(u64::MAX);
        for line in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let line = format!("{line}:\t{caps}");
            assert!(out.lines().any(|l| l == line), "{line} is missing in\n{out}");
        }
        if user.is_empty() {
            let rest = out.split_once("device\n").expect(&out).1;
            let want = "cgroup\nproc\n1\nmounted\n/dev/kmsg character special file 1:b 666\n\
                /dev/cuse character special file a:cb 666\n/dev/fuse character special file a:e5 666\n\
                /dev/kvm character special file a:e8 666\n/dev/net/tun character special file a:c8 666\n\
                /dev/loop-control character special file a:ed 666\n/dev/loop0 block special file 7:0 666\n\
                /dev/loop15 block special file 7:f 666\nnull\n";
            assert_eq!(rest, want);
        }
    }
}
