//! From a commit to a directory of the store.

use super::Remote;
use super::command::Git;
use super::git::Commit;
use crate::bridge::blocking;
use crate::error::OpFailure;
use crate::layer::row_of_new_dir;
use rbuild_ir::{GitOp, GitTime};
use rbuild_oci::Digest;
use rbuild_solver::{OpError, StepContext};
use rbuild_store::{LayerId, LayerIngest};
use rbuild_tree::{DirTree, FileKind, Metadata, Tree as _, TreePath};
use rustix::fs::{AtFlags, Mode, Timespec, Timestamps};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What decides the files of a checkout.
pub(crate) fn preimage(op: &GitOp, commit: &Commit) -> Value {
    json!({
        "op": "git",
        "commit": commit.id,
        "subdir": op.subdir,
        "submodules": op.submodules,
        "mtime": op.mtime,
        // `.git/config` names it.
        "remote": op.keep_git_dir.then(|| op.remote.redacted()),
    })
}

impl Remote {
    /// The checkout of a tree, by the name of the layer it is in the store.
    ///
    /// # Errors
    /// [`OpFailure`]: git failed, or there is no such reference, commit or directory.
    pub async fn tree(&self, op: &GitOp, step: &StepContext) -> Result<PathBuf, OpError> {
        let commit = self.commit(op, step).await?;
        Ok(self.checkout(op, &commit, step).await?.1)
    }

    /// The layer of a checkout, which is made unless the store has it.
    pub(crate) async fn checkout(
        &self,
        op: &GitOp,
        commit: &Commit,
        step: &StepContext,
    ) -> Result<(LayerId, PathBuf), OpError> {
        let id = Digest::of(format!("rbuild.git.v1\n{}", preimage(op, commit)));
        if let Some(dir) = self.store.layer_dir(&id)? {
            return Ok((id, dir));
        }
        let _lock = crate::cache::lock_key(&self.store, &Self::git_key(op), &step.cancel, || {}).await?;
        if let Some(dir) = self.store.layer_dir(&id)? {
            return Ok((id, dir));
        }
        let git = self.git(&op.remote)?;
        let bare = self.fetch(op, commit, &git, step).await?;
        let ingest = self.store.new_layer_dir()?;
        // A directory of the tree is checked out beside, then moved.
        let top = if op.subdir.is_empty() { ingest.upper.clone() } else { ingest.work.clone() };
        let checkout = Checkout { op, commit, git: &git, top: &top, step };
        checkout.files(&bare).await?;
        let time = checkout.time().await?;
        let (op, store) = (op.clone(), self.store.clone());
        let dir = blocking(move || -> Result<PathBuf, OpError> {
            let keep_git_dir = op.keep_git_dir && op.subdir.is_empty();
            settle(&top, keep_git_dir, time)?;
            if !op.subdir.is_empty() {
                move_subdir(&op, &ingest)?;
            }
            let dir = store.commit_layer_dir(ingest, &id)?;
            store.put_layer(row_of_new_dir(id))?;
            Ok(dir)
        });
        Ok((id, dir.await?))
    }
}

/// A checkout being made.
struct Checkout<'a> {
    op: &'a GitOp,
    commit: &'a Commit,
    git: &'a Git,
    /// An empty directory, which becomes the work tree.
    top: &'a Path,
    step: &'a StepContext,
}

impl Checkout<'_> {
    async fn git(&self, args: &[&str]) -> Result<Vec<u8>, OpError> {
        self.git.must(self.top, args, "check out", self.step).await
    }

    /// Writes the commit's files, and those of its submodules, with a repository beside them.
    async fn files(&self, bare: &Path) -> Result<(), OpError> {
        let id = self.commit.id.as_str();
        self.git(&["init", "--quiet", "--template=", "."]).await?;
        // Submodules may be given relative to it.
        self.git(&["config", "remote.origin.url", &self.git.url]).await?;
        if self.op.keep_git_dir {
            let bare = bare.to_str().ok_or("the store's path is no UTF-8")?;
            let args = ["fetch", "--quiet", "--no-tags", "--depth=1", "--", &format!("file://{bare}"), id];
            let output = self.git.run_local(self.top, &args, self.step).await?;
            if !output.success {
                return Err(self.git.failed("check out", &output.stderr));
            }
        } else {
            let info = self.top.join(".git/objects/info");
            std::fs::create_dir_all(&info)?;
            std::fs::write(info.join("alternates"), format!("{}\n", bare.join("objects").display()))?;
        }
        let commit =
            self.git(&["rev-parse", "--verify", "--end-of-options", &format!("{id}^{{commit}}")]).await?;
        let commit = String::from_utf8_lossy(&commit).trim().to_owned();
        self.git(&["update-ref", "--no-deref", "HEAD", &commit]).await?;
        self.git(&["read-tree", "--reset", "-u", &commit]).await?;
        if self.op.submodules
            && std::fs::symlink_metadata(self.top.join(".gitmodules")).is_ok_and(|meta| meta.is_file())
        {
            self.submodules().await?;
        }
        Ok(())
    }

    async fn submodules(&self) -> Result<(), OpError> {
        let args = ["submodule", "--quiet", "update", "--init", "--recursive", "--force"];
        let shallow = self.git.run(self.top, &[&args[..], &["--depth=1"]].concat(), self.step).await?;
        if shallow.success {
            return Ok(());
        }
        // The recorded commit may be none that its server gives alone.
        let whole = self.git.run(self.top, &args, self.step).await?;
        if whole.success {
            Ok(())
        } else {
            Err(self.git.failed("check out the submodules of", &whole.stderr))
        }
    }

    /// The time that all files get, if not that of the checkout.
    async fn time(&self) -> Result<Option<i64>, OpError> {
        if self.op.mtime == GitTime::Checkout {
            return Ok(None);
        }
        // Not `git show`: that reads the parents, which only another fetch may have brought into the shallow repository.
        let commit = self.git(&["cat-file", "commit", "HEAD"]).await?;
        let time = committed(&commit).ok_or_else(|| format!("commit {} has no time", self.commit.id))?;
        Ok(Some(time))
    }
}

/// The time of a commit object, from its line `committer NAME <MAIL> SECONDS ZONE`.
fn committed(commit: &[u8]) -> Option<i64> {
    let header = commit.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    let line = header.into_iter().find(|line| line.starts_with(b"committer "))?;
    let times = line.rsplit(|byte| *byte == b'>').next()?;
    std::str::from_utf8(times).ok()?.split_whitespace().next()?.parse().ok()
}

/// Removes repositories, and gives files the modes 0644 and 0755, directories 0755, and all the time.
fn settle(top: &Path, keep_git_dir: bool, time: Option<i64>) -> Result<(), OpError> {
    if !keep_git_dir {
        std::fs::remove_dir_all(top.join(".git"))?;
    }
    let tree = DirTree::open(top)?;
    // What is deepest comes first, so that writing an entry does not date its directory again.
    for (path, meta) in tree.walk(&TreePath::root())?.into_iter().rev() {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let dir = tree.open_dir(&parent)?;
        // No tree of git has such a name: it is the link of a submodule to its repository.
        if name == ".git" && !meta.is_dir() && !keep_git_dir {
            rustix::fs::unlinkat(&dir, name, AtFlags::empty())?;
            continue;
        }
        if let Some(mode) = wanted_mode(&meta).filter(|mode| *mode != meta.mode) {
            rustix::fs::chmodat(&dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        if let Some(seconds) = time {
            let stamp = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let stamps = Timestamps { last_access: stamp, last_modification: stamp };
            rustix::fs::utimensat(&dir, name, &stamps, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}

fn wanted_mode(meta: &Metadata) -> Option<u32> {
    match meta.kind {
        FileKind::Directory => Some(0o755),
        FileKind::Regular => Some(if meta.mode & 0o100 == 0 { 0o644 } else { 0o755 }),
        _ => None,
    }
}

/// Makes the directory that is meant the layer. Links on the way lead nowhere outside the checkout.
fn move_subdir(op: &GitOp, ingest: &LayerIngest) -> Result<(), OpError> {
    let missing = || OpFailure::NoGitDirectory { remote: op.remote.redacted(), subdir: op.subdir.clone() };
    let tree = DirTree::open(&ingest.work)?;
    let wanted = TreePath::clamped(&op.subdir)?;
    let found = rbuild_tree::resolve(&tree, &wanted, true)?;
    if !found.meta.is_some_and(|meta| meta.is_dir()) {
        return Err(missing().into());
    }
    let upper = std::fs::File::open(ingest.upper.parent().ok_or_else(missing)?)?;
    match (found.path.parent(), found.path.file_name()) {
        (Some(parent), Some(name)) => {
            let from = tree.open_dir(&parent)?;
            rustix::fs::renameat(&from, name, &upper, "fs")?;
        }
        _ => rustix::fs::renameat(&upper, "work", &upper, "fs")?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::committed;

    #[test]
    fn a_117_the_time_of_a_commit() {
        let commit =
            |line: &str| format!("tree 1\nauthor A <a> 5 +0000\n{line}\n\ncommitter X <x> 9 +0000\n");
        for (line, expected) in [
            ("committer A B <a@b> 1600000000 +0200", Some(1_600_000_000)),
            ("committer A > B <a@b> -7 -0100", Some(-7)),
            ("committer <> 3 +0000\ngpgsig committer", Some(3)),
            ("committer A <a@b>", None),
            ("committer A <a@b> x +0000", None),
            ("commit", None),
        ] {
            assert_eq!(committed(commit(line).as_bytes()), expected, "{line}");
        }
        assert_eq!(committed(b"committer \xff\xfe <\xff> 4 +0000"), Some(4));
        assert_eq!(committed(b""), None);
    }
}
