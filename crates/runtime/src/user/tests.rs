use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment:x:7:7::/:\n\nbroken\nhalf:x:abc:0::/x:\n\
    app:x:1000:1001:App:/home/app:/bin/sh\ndup:x:1000:2000::/dup:\nnohome:x:5:5\n77:x:500:500::/n:\nhuge:x:4000000000:1::/:\n";
const GROUP: &str = "root:x:0:\nadm:x:4:root,app\n#x:x:1:app\napp:x:1001:\nstaff:x:50: app ,root\nbad:x:y:app\nself:x:1001:app\n";

fn id(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
    Identity { uid, gid, groups: groups.to_vec(), home: home.to_owned() }
}

#[test]
fn a_069_table() {
    let cases = [
        ("", id(0, 0, &[0, 4, 50], "/root")),
        ("root", id(0, 0, &[0, 4, 50], "/root")),
        ("0", id(0, 0, &[0, 4, 50], "/root")),
        ("app", id(1000, 1001, &[1001, 4, 50], "/home/app")),
        ("1000", id(1000, 1001, &[1001, 4, 50], "/home/app")),
        ("app:staff", id(1000, 50, &[50], "/home/app")),
        ("app:", id(1000, 1001, &[1001, 4, 50], "/home/app")),
        ("app:777", id(1000, 777, &[777], "/home/app")),
        ("4242", id(4242, 0, &[0], "/")),
        ("4242:adm", id(4242, 4, &[4], "/")),
        ("4242:4242", id(4242, 4242, &[4242], "/")),
        ("nohome", id(5, 5, &[5], "")),
        // A number is always an id, even when a user is called so.
        ("77", id(77, 0, &[0], "/")),
        // HOME goes by the id.
        ("dup", id(1000, 2000, &[2000], "/home/app")),
        (":adm", id(0, 4, &[4], "/root")),
    ];
    for (spec, want) in cases {
        assert_eq!(resolve_user(spec, PASSWD, GROUP).unwrap(), want, "{spec}");
    }
}

#[test]
fn a_069_errors() {
    let cases = [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("half", "unable to find user half"),
        ("app:nogroup", "unable to find group nogroup: no matching entries in group file"),
        ("-1", "unable to find user -1"),
        ("4294967295", "uid 4294967295 of USER 4294967295 is out of range"),
        ("huge", "out of range"),
        ("1:2147483648", "gid 2147483648"),
    ];
    for (spec, want) in cases {
        let message = resolve_user(spec, PASSWD, GROUP).unwrap_err().to_string();
        assert!(message.contains(want), "{spec}: {message}");
    }
    assert_eq!(resolve_user("", "", "").unwrap(), id(0, 0, &[0], "/"));
}
