//! Program, streams, environment, user, working directory.

use rbuild_runtime::{ExitStatus, RuntimeError};

use crate::common::{Bed, Test};

pub(crate) const TESTS: &[Test] = &[
    ("exit_codes_and_signals", exit_codes_and_signals),
    ("streams", streams),
    ("a_077_environment", environment),
    ("a_069_users", users),
    ("a_068_working_directory", working_directory),
    ("exec_errors", exec_errors),
    ("exec_form_path_lookup", exec_form_path_lookup),
    ("umask_and_limits", umask_and_limits),
    ("usage_is_reported", usage_is_reported),
];

///
fn exit_codes_and_signals() {
    let cases = [
        ("exit 0", ExitStatus::Exited(0)),
        ("exit 7", ExitStatus::Exited(7)),
        ("exit 255", ExitStatus::Exited(255)),
        ("sh -c 'kill -9 $$'; exit $?", ExitStatus::Exited(137)),
        ("sh -c 'kill -15 $$'; exit $?", ExitStatus::Exited(143)),
    ];
    for (script, want) in cases {
        let bed = Bed::new();
        let outcome = bed.run(bed.sh(script)).unwrap().outcome;
        assert_eq!(outcome.status, want, "{script}");
        assert!(!outcome.killed && !outcome.deadline, "{script}");
    }
}

fn streams() {
    let bed = Bed::new();
    let ran = bed.run(bed.sh("echo out; echo err >&2; wc -c; [ -p /dev/stdout ] && echo pipe")).unwrap();
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("out\n0\npipe\n", "err\n"));
}

fn environment() {
    let bed = Bed::new();
    let mut spec = bed.spec(&["env"]);
    spec.env =
        [("A", "1"), ("B", "two words"), ("A", "3")].map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    spec.user = "app".to_owned();
    let path = rbuild_runtime::DEFAULT_PATH;
    assert_eq!(bed.output_of(spec), format!("B=two words\nA=3\nPATH={path}\nHOME=/home/app\n"));
    bed.fresh_upper();
    assert_eq!(bed.output("echo $$ $PWD"), "1 /\n");
}

fn users() {
    let cases = [
        ("", "uid=0(root) gid=0(root) groups=0(root)", "/root"),
        ("app", "uid=1000(app) gid=1001(app) groups=1001(app),2000(extra)", "/home/app"),
        ("1000:0", "uid=1000(app) gid=0(root) groups=0(root)", "/home/app"),
        ("5000", "uid=5000 gid=0(root) groups=0(root)", "/"),
    ];
    for (user, id, home) in cases {
        let bed = Bed::new();
        let mut spec = bed.sh("id; echo $HOME");
        spec.user = user.to_owned();
        assert_eq!(bed.output_of(spec), format!("{id}\n{home}\n"), "{user}");
    }
    let bed = Bed::new();
    let mut spec = bed.sh("id");
    spec.user = "nobody".to_owned();
    let error = bed.run(spec).err().unwrap();
    assert!(
        matches!(&error, RuntimeError::User { message } if message.starts_with("unable to find user nobody")),
        "{error}"
    );
}

fn working_directory() {
    let bed = Bed::new();
    let mut spec = bed.sh("pwd; stat -c '%a %u:%g' . ..; id -u");
    spec.cwd = "/srv/new/dir".to_owned();
    spec.user = "app".to_owned();
    assert_eq!(bed.output_of(spec), "/srv/new/dir\n755 1000:1001\n755 1000:1001\n1000\n");
    assert!(bed.upper().contains(&"srv/new/dir/".to_owned()), "{:?}", bed.upper());
}

fn exec_errors() {
    let bed = Bed::new();
    bed.write("base/bin/noexec", "#!/bin/sh\n");
    bed.write("base/bin/badscript", "#!/no/such/interpreter\n");
    bed.write("base/bin/junk", "\u{1}\u{2}\u{3}");
    for name in ["badscript", "junk"] {
        let path = bed.path("base/bin").join(name);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let cases = [
        ("foo", "exec: \"foo\": executable file not found in $PATH", 127),
        ("/foo", "exec: \"/foo\": stat /foo: no such file or directory", 127),
        ("/bin/noexec", "exec: \"/bin/noexec\": permission denied", 126),
        ("/etc", "exec: \"/etc\": is a directory", 126),
        ("badscript", "exec: \"/bin/badscript\": no such file or directory: the interpreter", 127),
        ("junk", "exec: \"/bin/junk\": exec format error", 126),
    ];
    for (name, want, code) in cases {
        let error = bed.run(bed.spec(&[name])).err().unwrap();
        assert!(error.to_string().starts_with(want), "{name}: {error}");
        assert_eq!(error.exit_code(), Some(code), "{name}");
        assert_eq!(bed.upper(), ["dev/", "etc/", "proc/", "sys/"], "{name}");
        bed.fresh_upper();
    }
}

fn exec_form_path_lookup() {
    let bed = Bed::new();
    bed.write("base/opt/tool", "#!/bin/sh\necho found $0\n");
    std::fs::set_permissions(bed.path("base/opt/tool"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let mut spec = bed.spec(&["tool"]);
    spec.env = vec![("PATH".to_owned(), "/nowhere:/opt".to_owned())];
    assert_eq!(bed.output_of(spec), "found /opt/tool\n");
}

fn umask_and_limits() {
    let bed = Bed::new();
    let mut spec = bed.sh("umask; ulimit -Sn; ulimit -Hn; ulimit -Hc");
    let limit =
        |resource: &str, soft, hard| rbuild_runtime::Rlimit { resource: resource.to_owned(), soft, hard };
    spec.rlimits = vec![limit("nofile", Some(100), Some(200)), limit("core", Some(7), Some(0))];
    assert_eq!(bed.output_of(spec), "0022\n100\n200\n0\n");
    bed.fresh_upper();
    let mut spec = bed.sh("true");
    spec.rlimits = vec![limit("nofile", None, None)];
    bed.output_of(spec);
    // raised where that is allowed, else as high as it goes.
    bed.fresh_upper();
    let may_raise = rustix::thread::capabilities(None)
        .is_ok_and(|own| own.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE));
    if let Some(own) = rustix::process::getrlimit(rustix::process::Resource::Nproc).maximum {
        let mut spec = bed.sh("grep processes /proc/self/limits");
        spec.rlimits = vec![limit("nproc", Some(1), Some(own + 1))];
        let shown = bed.output_of(spec);
        let hard = if may_raise { own + 1 } else { own };
        assert!(shown.contains(&format!(" {hard} ")), "{shown}");
        bed.fresh_upper();
    }
    let mut spec = bed.sh("true");
    spec.rlimits = vec![limit("bogus", None, None)];
    assert!(bed.run(spec).err().unwrap().to_string().contains("unknown resource limit bogus"));
}

fn usage_is_reported() {
    let bed = Bed::new();
    let outcome = bed.run(bed.sh("i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done")).unwrap().outcome;
    assert!(outcome.usage.user_us + outcome.usage.system_us > 0, "{outcome:?}");
    assert!(outcome.usage.max_rss_kib > 0, "{outcome:?}");
}
