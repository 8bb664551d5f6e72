use super::*;
use crate::conformance::{differs, replay};
use proptest::prelude::*;
use serde_json::Value;

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
    replay("git-ref.json", |entry| match GitRef::parse(entry["ref"].as_str().unwrap()) {
        Ok(parsed) => differs(entry, &fields(&parsed), &entry["git"]),
        Err(GitRefError::Invalid(message)) => {
            let expected = (entry["error"].as_str(), entry["is_git"].as_bool());
            differs(entry, (Some(message.as_str()), Some(true)), expected)
        }
        Err(GitRefError::NotGit(_)) => differs(entry, Some(false), entry["is_git"].as_bool()),
    });
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
