//! Which commit a git reference means, and bringing it here (A-116, A-117, C-016).

use super::command::Git;
use super::{Remote, git_pin_name, now};
use crate::error::OpFailure;
use rbuild_ir::{GitOp, is_commit, is_commit_prefix, is_reference};
use rbuild_solver::{OpError, StepContext};
use rbuild_store::{GitReference, Store};
use std::path::{Path, PathBuf};

/// What a reference leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Id of the commit, or of the annotated tag that the checksum names.
    pub(crate) id: String,
    /// Full name of the reference it was found under, for servers that give references only.
    reference: Option<String>,
    /// The reference's own id is still to be compared with the checksum.
    unverified: bool,
}

impl Remote {
    /// Finds the commit. A whole commit id, as reference or checksum, is believed without asking; whether the reference
    /// leads to that checksum is checked when the commit is fetched.
    pub(crate) async fn commit(&self, op: &GitOp, step: &StepContext) -> Result<Commit, OpError> {
        let shown = || op.remote.redacted();
        let checksum = op.checksum.as_deref();
        if !is_reference(&op.reference) || checksum.is_some_and(|text| !is_commit_prefix(text)) {
            return Err(
                OpFailure::BadGitReference { remote: shown(), reference: op.reference.clone() }.into()
            );
        }
        if is_commit(&op.reference) {
            check(op, &op.reference, None)?;
            return Ok(Commit { id: op.reference.clone(), reference: None, unverified: false });
        }
        match checksum.filter(|text| is_commit(text)) {
            Some(id) => {
                let by_name = !op.fetch_by_commit && !op.reference.is_empty();
                Ok(Commit { id: id.to_owned(), reference: None, unverified: by_name })
            }
            None => self.locked_or_asked(op, step).await,
        }
    }

    /// Id of the commit that a reference leads to.
    ///
    /// # Errors
    /// As [`Remote::tree`].
    pub async fn commit_id(&self, op: &GitOp, step: &StepContext) -> Result<String, OpError> {
        Ok(self.commit(op, step).await?.id)
    }

    /// The commit that the lock names, else what the reference was when the remote was last asked, if that is recent
    /// enough, else what it is now.
    async fn locked_or_asked(&self, op: &GitOp, step: &StepContext) -> Result<Commit, OpError> {
        if let Some(id) = self.resolving.git(op)? {
            check(op, &id, None)?;
            return Ok(Commit { id, reference: None, unverified: false });
        }
        let name = git_pin_name(op);
        if let Some(known) = self.store.git_reference(&name)?
            && self.resolving.is_fresh(known.asked, now())
        {
            check(op, &known.commit, Some(&known.own))?;
            return Ok(Commit { id: known.commit, reference: Some(known.reference), unverified: false });
        }
        self.ask(op, step).await
    }

    /// Asks the remote for its references.
    async fn ask(&self, op: &GitOp, step: &StepContext) -> Result<Commit, OpError> {
        if self.resolving.offline {
            return Err(OpFailure::Offline(git_pin_name(op)).into());
        }
        let git = self.git(&op.remote)?;
        let dir = self.store.root().join("git");
        let name = if op.reference.is_empty() { "HEAD" } else { op.reference.as_str() };
        let peeled = format!("{name}^{{}}");
        let args = ["ls-remote", "--quiet", "--", git.url.as_str(), name, &peeled];
        let listed = git.must(&dir, &args, "list the references of", step).await?;
        let listed = String::from_utf8_lossy(&listed);
        let found = find(&listed, name).ok_or_else(|| OpFailure::NoGitReference {
            remote: op.remote.redacted(),
            reference: name.to_owned(),
        })?;
        check(op, &found.commit, Some(&found.own))?;
        let known = GitReference {
            commit: found.commit.clone(),
            own: found.own.clone(),
            reference: found.name.clone(),
            asked: now(),
        };
        self.store.remember_git_reference(&git_pin_name(op), &known)?;
        Ok(Commit { id: found.commit, reference: Some(found.name), unverified: false })
    }

    /// Brings the commit into the bare repository of its remote, which is given. The caller holds the remote's lock.
    pub(super) async fn fetch(
        &self,
        op: &GitOp,
        commit: &Commit,
        git: &Git,
        step: &StepContext,
    ) -> Result<PathBuf, OpError> {
        let mut commit = commit.clone();
        if commit.unverified {
            // `ask` compares with the checksum.
            commit = Commit { id: commit.id.clone(), ..self.ask(op, step).await? };
        }
        let dir = self.store.git_dir(&op.remote.redacted());
        self.prepare(&dir, git, step).await?;
        if self.has(&dir, &commit.id, git, step).await? {
            return Ok(dir);
        }
        if self.resolving.offline {
            return Err(OpFailure::Offline(format!("commit {} of {}", commit.id, op.remote)).into());
        }
        let shallow =
            ["fetch", "--quiet", "--no-tags", "--depth=1", "--no-write-fetch-head", "--", git.url.as_str()];
        let mut last = git.run(&dir, &[&shallow[..], &[commit.id.as_str()]].concat(), step).await?;
        // Some servers give references only.
        if let Some(reference) = commit.reference.as_ref().filter(|_| !last.success) {
            last = git.run(&dir, &[&shallow[..], &[reference.as_str()]].concat(), step).await?;
        }
        if !last.success || !self.has(&dir, &commit.id, git, step).await? {
            let mut all = vec!["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"];
            if dir.join("shallow").exists() {
                all.push("--unshallow");
            }
            all.extend([
                "--",
                git.url.as_str(),
                "+refs/heads/*:refs/rbuild/heads/*",
                "+refs/tags/*:refs/rbuild/tags/*",
            ]);
            last = git.run(&dir, &all, step).await?;
        }
        if !last.success {
            return Err(git.failed("fetch from", &last.stderr));
        }
        if !self.has(&dir, &commit.id, git, step).await? {
            let (remote, reference) = (op.remote.redacted(), commit.id);
            return Err(OpFailure::NoGitReference { remote, reference }.into());
        }
        Ok(dir)
    }

    /// Makes the bare repository, or clears away what a killed git left in it.
    async fn prepare(&self, dir: &Path, git: &Git, step: &StepContext) -> Result<(), OpError> {
        for name in ["shallow.lock", "config.lock", "HEAD.lock", "packed-refs.lock"] {
            match std::fs::remove_file(dir.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        if dir.join("rbuild-ready").exists() {
            return Ok(());
        }
        std::fs::create_dir_all(dir)?;
        git.must(dir, &["init", "--quiet", "--bare", "--template=", "."], "make a repository for", step)
            .await?;
        Ok(std::fs::write(dir.join("rbuild-ready"), "")?)
    }

    async fn has(&self, dir: &Path, id: &str, git: &Git, step: &StepContext) -> Result<bool, OpError> {
        Ok(git.run(dir, &["cat-file", "-e", &format!("{id}^{{commit}}")], step).await?.success)
    }

    /// The lock of a remote's repository.
    pub(super) fn git_key(op: &GitOp) -> rbuild_oci::Digest {
        Store::git_lock(&op.remote.redacted())
    }
}

/// A line of `git ls-remote`, with the commit behind an annotated tag.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    name: String,
    own: String,
    commit: String,
}

/// What `name` means among the references listed: itself, else a branch, else a tag, else something below `refs/`.
fn find(listed: &str, name: &str) -> Option<Listed> {
    let lines: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('\t')).collect();
    let id_of = |full: &str| {
        let found = lines.iter().find(|(id, reference)| *reference == full && is_commit(id));
        found.map(|(id, _)| (*id).to_owned())
    };
    let names =
        [name.to_owned(), format!("refs/heads/{name}"), format!("refs/tags/{name}"), format!("refs/{name}")];
    let allowed = names.into_iter().filter(|full| full == "HEAD" || full.starts_with("refs/"));
    allowed.into_iter().find_map(|full| {
        let own = id_of(&full)?;
        let commit = id_of(&format!("{full}^{{}}")).unwrap_or_else(|| own.clone());
        Some(Listed { name: full, own, commit })
    })
}

/// the checksum is the beginning of the commit's id, or of the annotated tag's own.
fn check(op: &GitOp, commit: &str, own: Option<&str>) -> Result<(), OpError> {
    let Some(expected) = &op.checksum else { return Ok(()) };
    if commit.starts_with(expected) || own.is_some_and(|own| own.starts_with(expected)) {
        return Ok(());
    }
    let (remote, expected, found) = (op.remote.redacted(), expected.clone(), commit.to_owned());
    Err(OpFailure::WrongCommit { remote, expected, found }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_come_before_tags() {
        let id = |digit: char| String::from_iter(std::iter::repeat_n(digit, 40));
        let list = |lines: &[(char, &str)]| -> String {
            lines.iter().map(|(digit, name)| format!("{}\t{name}\n", id(*digit))).collect()
        };
        let all = list(&[
            ('1', "HEAD"),
            ('2', "refs/heads/v1"),
            ('3', "refs/tags/v1"),
            ('4', "refs/tags/v2"),
            ('5', "refs/tags/v2^{}"),
            ('6', "refs/pull/1/head"),
            ('7', "refs/heads/x/main"),
        ]);
        for (name, expected) in [
            ("HEAD", Some(('1', "HEAD"))),
            ("v1", Some(('2', "refs/heads/v1"))),
            ("refs/tags/v1", Some(('3', "refs/tags/v1"))),
            ("tags/v1", Some(('3', "refs/tags/v1"))),
            ("v2", Some(('5', "refs/tags/v2"))),
            ("pull/1/head", Some(('6', "refs/pull/1/head"))),
            ("main", None),
        ] {
            let found = find(&all, name).map(|listed| (listed.commit, listed.name));
            assert_eq!(found, expected.map(|(digit, name)| (id(digit), name.to_owned())), "{name}");
        }
        assert_eq!(find("--upload-pack=x\trefs/heads/a\n", "a"), None);
    }
}
