//! What decides a RUN's output besides its root and the roots it mounts (C-014).

use rbuild_ir::{ExecOp, Mount, MountKind, Source};
use rbuild_oci::Digest;
use serde_json::{Value, json};

/// The preimage of the operation key. `contexts` has, for each mount, the digest of what it shows of a local context.
///
/// Every field of the operation is either in the result or named as left out: a new one does not compile before somebody
/// decides.
pub(super) fn preimage(op: &ExecOp, contexts: &[Option<Digest>]) -> Value {
    let ExecOp {
        args,
        env,
        cwd,
        user,
        hostname,
        network,
        security,
        mounts,
        devices,
        pipes,
        extra_host_names,
        ulimits,
        platform,
        proxy_env: _,
        extra_hosts: _,
    } = op;
    let mounts: Vec<Value> =
        mounts.iter().enumerate().map(|(at, one)| mount(one, contexts.get(at).copied().flatten())).collect();
    let pipes: Vec<Value> =
        pipes.iter().map(|(name, text)| json!({ "name": name, "text": Digest::of(text) })).collect();
    let mut preimage = json!({
        "op": "exec",
        "args": args,
        "env": env,
        "cwd": cwd,
        "user": user,
        "hostname": hostname,
        "network": network,
        "security": security,
        "mounts": mounts,
        "pipes": pipes,
        "extra_host_names": extra_host_names,
        "ulimits": ulimits,
        "platform": platform,
    });
    if !devices.is_empty() {
        // Only where there are some, so that steps without keep the keys they had.
        preimage["devices"] = json!(devices);
    }
    preimage
}

fn mount(mount: &Mount, context: Option<Digest>) -> Value {
    let Mount { target, kind, readonly } = mount;
    let kind = match kind {
        // What the path of a context means is in the digest; the path itself does not matter.
        MountKind::Bind { from: Source::Context(_), source: _ } => {
            json!({ "type": "bind", "content": context })
        }
        MountKind::Bind { from, source } => json!({ "type": "bind", "from": from, "source": source }),
        MountKind::Cache { id, sharing, mode, uid, gid, owned, from, source } => {
            let from = match from {
                // What it begins with is then not the files of `from` (see `ir`).
                Some(_) if *owned => json!("owned"),
                Some(Source::Context(_)) => json!({ "content": context }),
                other => json!(other),
            };
            json!({
                "type": "cache",
                "id": (id != target).then_some(id),
                "sharing": sharing,
                "mode": mode,
                "uid": uid,
                "gid": gid,
                "from": from,
                "source": source,
            })
        }
        MountKind::Tmpfs { size } => json!({ "type": "tmpfs", "size": size }),
        MountKind::Secret { id, env, file, required, mode, uid, gid } => json!({
            "type": "secret", "id": id, "env": env, "file": file, "required": required,
            "mode": mode, "uid": uid, "gid": gid,
        }),
        MountKind::Ssh { id, required, mode, uid, gid } => json!({
            "type": "ssh", "id": id, "required": required, "mode": mode, "uid": uid, "gid": gid,
        }),
    };
    json!({ "target": target, "readonly": readonly, "kind": kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(target: &str, kind: MountKind, context: Option<&str>) -> String {
        mount(&Mount { target: target.into(), kind, readonly: true }, context.map(Digest::of)).to_string()
    }

    fn bind(path: &str) -> MountKind {
        MountKind::Bind { from: Source::Context("context".into()), source: path.into() }
    }

    fn cache(id: &str) -> MountKind {
        let (from, source) = (None, "/".to_owned());
        let sharing = rbuild_ir::Sharing::Shared;
        MountKind::Cache { id: id.into(), sharing, mode: 0o755, uid: 0, gid: 0, owned: false, from, source }
    }

    fn exec() -> ExecOp {
        ExecOp {
            args: vec!["/bin/sh".into(), "-c".into(), "make".into()],
            env: vec![("PATH".into(), "/bin".into())],
            cwd: "/".into(),
            user: String::new(),
            hostname: None,
            network: rbuild_ir::NetworkMode::default(),
            security: rbuild_ir::SecurityMode::default(),
            mounts: Vec::new(),
            devices: Vec::new(),
            pipes: Vec::new(),
            extra_host_names: Vec::new(),
            ulimits: Vec::new(),
            platform: "linux/amd64".parse().unwrap(),
            proxy_env: Vec::new(),
            extra_hosts: Vec::new(),
        }
    }

    fn secret() -> MountKind {
        let (id, env, file) = ("token".to_owned(), None, true);
        MountKind::Secret { id, env, file, required: false, mode: 0o400, uid: 0, gid: 0 }
    }

    #[test]
    fn c_014_what_counts_and_what_does_not() {
        type Edit = fn(&mut ExecOp);
        let own = |kind| Mount { target: "/m".into(), kind, readonly: false };
        let cases: [(&str, bool, Edit); 20] = [
            ("an argument", true, |op| op.args[2] = "make all".into()),
            ("how arguments are divided", true, |op| op.args = vec!["/bin/sh".into(), "-c make".into()]),
            ("a variable", true, |op| op.env[0].1 = "/sbin".into()),
            ("the order of variables", true, |op| op.env.insert(0, ("A".into(), "1".into()))),
            ("the working directory", true, |op| op.cwd = "/w".into()),
            ("the user", true, |op| op.user = "7".into()),
            ("the hostname", true, |op| op.hostname = Some("h".into())),
            ("the network", true, |op| op.network = rbuild_ir::NetworkMode::None),
            ("the security mode", true, |op| op.security = rbuild_ir::SecurityMode::Insecure),
            ("a script", true, |op| op.pipes.push(("a".into(), "text".into()))),
            ("a host's name", true, |op| op.extra_host_names.push("h".into())),
            ("a limit", true, |op| op.ulimits.push("nofile=1:1".into())),
            ("the platform", true, |op| op.platform = "linux/arm64".parse().unwrap()),
            ("a device", true, |op| {
                op.devices.push(rbuild_ir::Device { name: "v.com/c=d".into(), required: false });
            }),
            ("a secret's name", true, |op| {
                op.mounts.push(Mount { target: "/s".into(), kind: secret(), readonly: true });
            }),
            ("a mount's size", true, |op| {
                let kind = MountKind::Tmpfs { size: Some(1) };
                op.mounts.push(Mount { target: "/t".into(), kind, readonly: false });
            }),
            ("an undeclared proxy", false, |op| op.proxy_env.push(("http_proxy".into(), "http://p".into()))),
            ("a host's address", false, |op| op.extra_hosts.push(("h".into(), "1.2.3.4".into()))),
            ("nothing", false, |_| {}),
            ("an empty script", true, |op| op.pipes.push((String::new(), String::new()))),
        ];
        let plain = preimage(&exec(), &[]);
        for (what, counts, edit) in cases {
            let mut op = exec();
            edit(&mut op);
            assert_eq!(preimage(&op, &vec![None; op.mounts.len()]) != plain, counts, "{what}");
        }
        // Every option of a cache mount but its default name.
        let with = |kind| preimage(&ExecOp { mounts: vec![own(kind)], ..exec() }, &[None]);
        let cache = |sharing, mode| {
            let (id, from, source) = ("/m".to_owned(), None, "/".to_owned());
            with(MountKind::Cache { id, sharing, mode, uid: 0, gid: 0, owned: true, from, source })
        };
        let shared = cache(rbuild_ir::Sharing::Shared, 0o755);
        assert_ne!(shared, cache(rbuild_ir::Sharing::Locked, 0o755));
        assert_ne!(shared, cache(rbuild_ir::Sharing::Shared, 0o700));
        let device = |required| {
            let devices = vec![rbuild_ir::Device { name: "v.com/c=d".into(), required }];
            preimage(&ExecOp { devices, ..exec() }, &[])
        };
        assert_ne!(device(true), device(false));
    }

    #[test]
    fn a_090_a_context_counts_by_content() {
        assert_eq!(shown("/x", bind("/a"), Some("1")), shown("/x", bind("/b"), Some("1")));
        assert_ne!(shown("/x", bind("/a"), Some("1")), shown("/x", bind("/a"), Some("2")));
        assert_ne!(shown("/x", bind("/a"), Some("1")), shown("/y", bind("/a"), Some("1")));
    }

    #[test]
    fn a_090_a_cache_counts_by_id_only_if_it_has_its_own() {
        assert!(shown("/x", cache("/x"), None).contains(r#""id":null"#));
        assert!(shown("/x", cache("mine"), None).contains(r#""id":"mine""#));
    }
}
