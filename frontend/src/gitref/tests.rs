use super::*;
use proptest::prelude::*;
use serde_json::Value;
use std::path::PathBuf;

#[expect(clippy::disallowed_methods, reason = "a test finds its data through the environment")]
fn table() -> Vec<Value> {
    let root = std::env::var_os("RBUILD_CONFORMANCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        PathBuf::from,
    );
    match std::fs::read_to_string(root.join("golden/git-ref.json")) {
        Ok(text) => serde_json::from_str(&text).expect("the table is JSON"),
        Err(error) => {
            println!("skipped: git-ref.json: {error}");
            Vec::new()
        }
    }
}

fn fields(parsed: &GitRef) -> Value {
    let time = parsed.mtime.map_or("", |time| if time == GitTime::Commit { "commit" } else { "checkout" });
    serde_json::json!({
        "Remote": parsed.remote.secret(),
        "ShortName": parsed.short_name,
        "Ref": parsed.reference,
        "Checksum": parsed.checksum,
        "SubDir": parsed.subdir,
        "IndistinguishableFromLocal": parsed.indistinguishable_from_local,
        "UnencryptedTCP": parsed.unencrypted_tcp,
        "KeepGitDir": parsed.keep_git_dir,
        "Submodules": parsed.submodules,
        "MTime": time,
        "FetchByCommit": parsed.fetch_by_commit,
    })
}

/// All of golden/git-ref.json: what is a repository, what of it, and what is wrong with it.
#[test]
fn git_ref() {
    for entry in table() {
        let text = entry["ref"].as_str().unwrap();
        match GitRef::parse(text) {
            Ok(parsed) => assert_eq!(fields(&parsed), entry["git"], "{text}"),
            Err(GitRefError::Invalid(message)) => {
                assert_eq!(
                    (Some(message.as_str()), Some(true)),
                    (entry["error"].as_str(), entry["is_git"].as_bool())
                );
            }
            Err(GitRefError::NotGit(_)) => assert_eq!(entry["is_git"].as_bool(), Some(false), "{text}"),
        }
    }
}

#[test]
fn subdirectories_cannot_climb() {
    for (text, subdir) in [
        ("https://h/a.git#main:../../etc", "etc"),
        ("https://h/a.git#main:/x/../y/", "y"),
        ("https://h/a.git?subdir=..%2f..%2fetc", "etc"),
        ("https://h/a.git#main:.", ""),
        ("https://h/a.git", ""),
    ] {
        assert_eq!(GitRef::parse(text).unwrap().into_op().subdir, subdir, "{text}");
    }
}

#[test]
fn a_host_cannot_be_an_option() {
    for text in ["ssh://-oProxyCommand=x/a", "git://user@-x/a", "git:///a", "https://:1 2/a.git"] {
        assert!(matches!(GitRef::parse(text), Err(GitRefError::NotGit(_))), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "(https?://|git@|ssh://|git://|github.com/)?[a-z%0-9:/?#&=@.+é-]{0,40}") {
        if let Ok(parsed) = GitRef::parse(&text) {
            let op = parsed.into_op();
            prop_assert!(!op.subdir.split('/').any(|part| part == ".."));
        }
    }
}
