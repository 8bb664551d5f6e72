//! Secrets and SSH agents.

use crate::bed::{Bed, bed, holding};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const SSH_TOOLS: [&str; 2] = ["/usr/bin/ssh-add", "/usr/bin/ssh-keygen"];
const VALUE: &str = "correct-horse-battery-staple-4711";

///
#[test]
fn a_087_a_secret_is_a_file_or_a_variable() {
    let Some(bed) = bed("a_087_a_secret_is_a_file_or_a_variable") else { return };
    let file = bed.path("token");
    fs::write(&file, VALUE).unwrap();
    let secret = format!("id=token,src={}", file.display());
    let args = ["--secret", secret.as_str()];
    for step in [
        "--mount=type=secret,id=token test $(cat /run/secrets/token) = $WANT && test $(stat -c %a:%u:%g /run/secrets/token) = 400:0:0",
        "--mount=type=secret,id=token grep -q '/run/secrets/token tmpfs ro,nosuid,nodev,noexec' /proc/mounts",
        "--mount=type=secret,id=token,target=/s,mode=0444,uid=5,gid=6 test $(stat -c %a:%u:%g /s) = 444:5:6",
        "--mount=type=secret,id=token,mode=4755 test $(stat -c %a /run/secrets/token) = 755",
        "--mount=type=secret,id=token ! touch /run/secrets/token 2>/dev/null",
        "--mount=type=secret,id=token,env=TOKEN test $TOKEN = $WANT && test ! -e /run/secrets/token",
        "--mount=type=secret,id=token,env=TOKEN,target=/s test $TOKEN = $WANT && test $(cat /s) = $WANT",
        "--mount=type=secret,target=/root/token test $(cat /root/token) = $WANT",
        "--mount=type=secret,id=token,required=true test -s /run/secrets/token",
        "--mount=type=secret,id=none test ! -e /run/secrets/none",
        "--mount=type=secret,id=none,env=TOKEN test -z $TOKEN && env | grep -q ^TOKEN=$",
    ] {
        bed.build(&format!("RUN {}", step.replace("$WANT", VALUE)), &args).succeeded();
    }
    for option in ["required", "required=true"] {
        let step = format!("RUN --mount=type=secret,id=none,{option} true");
        bed.build(&step, &args).failed_with("secret none: not found");
    }
    let mut command = bed.command(
        "RUN --mount=type=secret,id=FROM_ENV test $(cat /run/secrets/FROM_ENV) = value",
        &["--secret", "id=FROM_ENV"],
    );
    assert!(command.env("FROM_ENV", "value").status().unwrap().success());
}

///
#[test]
fn a_087_no_byte_of_a_secret_is_kept() {
    let Some(bed) = bed("a_087_no_byte_of_a_secret_is_kept") else { return };
    let file = bed.path("token");
    fs::write(&file, format!("{VALUE}\n")).unwrap();
    let secret = format!("id=token,src={}", file.display());
    let out = bed.path("image.tar");
    let output = format!("type=oci,dest={}", out.display());
    let dockerfile = "RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=token,target=/s \
                      cat /s; echo \"it is $TOKEN!\" >&2; test -n \"$TOKEN\" && touch /used\n\
                      RUN --mount=type=secret,id=token --mount=type=cache,target=/c grep -q horse /run/secrets/token";
    let built = bed.build(dockerfile, &["--secret", &secret, "-t", "app", "-o", &output]).succeeded();
    assert!(!built.said.contains(VALUE) && built.said.contains("it is ****!"), "{}", built.said);
    assert_eq!(holding(&bed.store(), VALUE.as_bytes()), Vec::<std::path::PathBuf>::new());
    assert!(!fs::read(out).unwrap().windows(VALUE.len()).any(|part| part == VALUE.as_bytes()));
    let failed =
        bed.build("RUN --mount=type=secret,id=token,env=TOKEN echo $TOKEN; exit 3", &["--secret", &secret]);
    assert!(!failed.said.contains(VALUE), "{}", failed.said);
    failed.failed_with("exit code: 3");
    assert_eq!(holding(&bed.store(), VALUE.as_bytes()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn w16_a_secret_that_a_step_writes_into_the_image_is_reported() {
    let Some(bed) = bed("w16_a_secret_that_a_step_writes_into_the_image_is_reported") else { return };
    fs::write(bed.path("token"), VALUE).unwrap();
    let secret = format!("id=token,src={}", bed.path("token").display());
    let step = "RUN --mount=type=secret,id=token mkdir -p /root; cat /run/secrets/token >/root/.npmrc";
    let built = bed.build(step, &["--secret", &secret]).succeeded();
    assert!(built.said.contains("wrote the value of a secret to /root/.npmrc"), "{}", built.said);
    assert!(!built.said.contains(VALUE));
}

///
#[test]
fn a_087_another_value_does_not_run_again() {
    let Some(bed) = bed("a_087_another_value_does_not_run_again") else { return };
    let file = bed.path("token");
    let secret = format!("id=token,src={}", file.display());
    let dockerfile = "RUN --mount=type=secret,id=token touch /done";
    for (value, executed) in [("first", true), ("second", false)] {
        fs::write(&file, value).unwrap();
        let built = bed.build(dockerfile, &["--secret", &secret]).succeeded();
        assert_eq!(built.executed() > 0, executed, "{}", built.said);
    }
    assert_eq!(bed.build(dockerfile, &[]).succeeded().executed(), 0);
}

/// D-011
#[test]
fn d_011_secrets_are_checked() {
    let Some(bed) = bed("d_011_secrets_are_checked") else { return };
    fs::write(bed.path("big"), vec![b'x'; (500 << 10) + 1]).unwrap();
    let big = format!("id=big,src={}", bed.path("big").display());
    bed.build("RUN true", &["--secret", &big]).failed_with("secret big too big. max size 500KB");
    bed.build("RUN true", &["--secret", "id=x,src=/no/such"]).failed_with("secret x: cannot read");
    // The largest one, none, and the last of several with one id.
    fs::write(bed.path("most"), vec![b'x'; 500 << 10]).unwrap();
    fs::write(bed.path("none"), "").unwrap();
    let [most, none] = ["most", "none"].map(|name| format!("id=s,src={}", bed.path(name).display()));
    let step = "RUN --mount=type=secret,id=s,required test $(stat -c %s /run/secrets/s) =";
    bed.build(&format!("{step} 512000"), &["--secret", &none, "--secret", &most]).succeeded();
    bed.build(&format!("{step} 0"), &["--secret", &most, "--secret", &none]).succeeded();
    let unset =
        bed.build(&format!("{step} 0 # unset"), &["--secret", "id=s,env=RBUILD_NEVER_SET"]).succeeded();
    assert!(unset.said.contains("the variable RBUILD_NEVER_SET is not set"), "{}", unset.said);
    fs::write(bed.path("binary"), b"\xff\xfe").unwrap();
    let binary = format!("id=binary,src={}", bed.path("binary").display());
    bed.build("RUN --mount=type=secret,id=binary,env=B true", &["--secret", &binary])
        .failed_with("variable B");
    bed.build("RUN --mount=type=secret,id=binary,required true # file", &["--secret", &binary]).succeeded();
}

/// A running agent without keys; dropping it ends it.
struct Agent(std::process::Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts `ssh-add` and `ssh-keygen` with the libraries that they need into the context. `None` where there is no OpenSSH.
fn ssh_add(bed: &Bed) -> Option<()> {
    let libraries =
        Command::new("ldd").args(SSH_TOOLS).output().ok().filter(|output| output.status.success())?;
    let libraries = String::from_utf8(libraries.stdout).unwrap();
    for path in libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .chain(SSH_TOOLS)
    {
        let copy = bed.context().join("ssh").join(path.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(path, copy).unwrap();
    }
    bed.write("ssh/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    Some(())
}

/// Starts an agent, for a context with `ssh-add`. `None` where there is no OpenSSH.
fn agent(bed: &Bed, socket: &Path) -> Option<Agent> {
    ssh_add(bed)?;
    let mut command = Command::new("ssh-agent");
    command.arg("-D").arg("-a").arg(socket).stdout(Stdio::null()).stderr(Stdio::null());
    let agent = Agent(command.spawn().ok()?);
    while !socket.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Some(agent)
}

///
#[test]
fn a_088_the_agent_is_forwarded() {
    let Some(bed) = bed("a_088_the_agent_is_forwarded") else { return };
    let socket = bed.path("agent");
    let Some(_agent) = agent(&bed, &socket) else {
        println!("skipped: a_088_the_agent_is_forwarded: no ssh-agent and ssh-add here");
        return;
    };
    let ask = "ssh-add -l | grep -q 'agent has no identities'";
    let given = format!("default={}", socket.display());
    let args = ["--ssh", given.as_str()];
    let mode = "test $(stat -c %a:%u:%g $SSH_AUTH_SOCK) = 600:0:0";
    let name = "test $SSH_AUTH_SOCK = /run/buildkit/ssh_agent.0";
    let with = |step: &str| format!("COPY ssh /\n{step}");
    bed.build(&with(&format!("RUN --mount=type=ssh {mode} && {name} && {ask}")), &args).succeeded();
    // The agent itself takes root and its owner only.
    let step = format!(
        "USER 5:6\nRUN --mount=type=ssh,uid=5,gid=6,mode=0660,target=/tmp/agent test -S /tmp/agent && {ask}"
    );
    bed.build(&with(&step), &args).succeeded();
    bed.build(&with(&format!("USER 5:6\nRUN --mount=type=ssh {ask}")), &args).failed_with("exit code: 1");
    // relative to the working directory.
    bed.build(&with("WORKDIR /w\nRUN --mount=type=ssh,target=agent test -S /w/agent && ssh-add -l | grep -q identities"), &args)
        .succeeded();
    bed.build("RUN --mount=type=ssh test ! -e $SSH_AUTH_SOCK # none", &[]).succeeded();
    bed.build("RUN --mount=type=ssh,required true", &[]).failed_with("ssh agent default: not found");
    bed.build("RUN --mount=type=ssh,id=other,required true", &args).failed_with("ssh agent other: not found");
    bed.build("RUN true", &["--ssh", "default"]).failed_with("make sure SSH_AUTH_SOCK is set");
}

/// D-012: an agent of our own offers the keys, which `ssh-add -T` and `ssh-keygen -Y` prove by signatures.
#[test]
fn d_012_key_files_are_offered_by_an_agent() {
    let Some(bed) = bed("d_012_key_files_are_offered_by_an_agent") else { return };
    let keygen = |name: &str, args: &[&str]| {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-C", &format!("key {name}"), "-f"]).arg(bed.context().join(name)).args(args);
        command.stdin(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if ssh_add(&bed).is_none() || !keygen("one", &["-t", "ed25519", "-N", ""]) {
        println!("skipped: d_012_key_files_are_offered_by_an_agent: no ssh-add and ssh-keygen here");
        return;
    }
    assert!(
        keygen("two", &["-t", "rsa", "-b", "2048", "-N", ""]) && keygen("three", &["-t", "ecdsa", "-N", ""])
    );
    assert!(keygen("locked", &["-t", "ed25519", "-N", "secret"]));
    let path = |name: &str| bed.context().join(name).display().to_string();
    let (both, other) =
        (format!("default={},{}", path("one"), path("two")), format!("other={}", path("three")));
    let args = ["--ssh", &both, "--ssh", &other];
    let copied = "COPY ssh /\nCOPY one.pub two.pub three.pub /keys/\n";
    bed.build(
        &format!(
            "{copied}RUN --mount=type=ssh,required ssh-add -l >/tmp-list && cat /tmp-list && test $(wc -l </tmp-list) = 2 && \\\n\
             grep -q 'key one (ED25519)' /tmp-list && grep -q 'key two (RSA)' /tmp-list && \\\n\
             ssh-add -T /keys/one.pub && ssh-keygen -Y sign -n test -f /keys/two.pub /tmp-list && grep -q SIGNATURE /tmp-list.sig\n\
             RUN --mount=type=ssh,required ! ssh-add -T /keys/three.pub && ! ssh-add -D && ssh-add -l | grep -q RSA\n\
             RUN --mount=type=ssh,id=other ssh-add -T /keys/three.pub && ssh-add -l | grep -q 'key three (ECDSA)'"
        ),
        &args,
    )
    .succeeded();
    let locked = format!("default={}", path("locked"));
    bed.build("RUN true", &["--ssh", &locked])
        .failed_with("the key is encrypted: add it to an agent (ssh-add)");
    let public = format!("default={}", path("one.pub"));
    bed.build("RUN true", &["--ssh", &public]).failed_with("nor a private key");
    // The private half is nowhere in the store.
    let private = fs::read_to_string(bed.context().join("one")).unwrap();
    let line = private.lines().nth(2).unwrap();
    assert!(!line.is_empty() && holding(&bed.store(), line.as_bytes()).is_empty());
}
