//! Build contexts and Dockerfiles that are fetched (D-002, D-003): before anything else they become local ones.

use crate::error::BuildError;
use crate::request::{BuildRequest, ContextSource, DockerfileSource, NamedContext};
use rbuild_event::{Event, Reporter};
use rbuild_frontend::gitref::{GitRef, GitRefError};
use rbuild_ir::{GitOp, GitTime, HttpOp, RemoteUrl};
use rbuild_op::{HttpFile, Remote, Resolving};
use rbuild_solver::{OpError, StepContext};
use rbuild_store::{LayerIngest, Store};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;

/// Longest Dockerfile behind a URL.
const MAX_DOCKERFILE: u64 = 64 << 20;

/// Build argument: `.git` of the main context's repository is part of the context.
const KEEP_GIT_ARG: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// What was fetched for a build.
#[derive(Default)]
pub(crate) struct FetchedContexts {
    /// The main context came from elsewhere: no ignore file applies, and -f is a path in it.
    pub(crate) main: bool,
    /// Where the fetched named contexts are. No ignore file applies to them.
    pub(crate) named: BTreeMap<String, PathBuf>,
    /// Where the main context came from.
    pub(crate) main_url: Option<RemoteUrl>,
    /// Directories that go with the build.
    _staged: Vec<LayerIngest>,
}

/// How contexts are found: a lock is known only when the Dockerfile is.
pub(crate) fn resolving(request: &BuildRequest) -> Resolving {
    let max_age = request.max_resolution_age;
    Resolving { offline: request.offline, max_age, ..Resolving::default() }
}

/// Replaces everything in the request that is to be fetched by what was fetched.
pub(crate) async fn fetch(
    request: &mut BuildRequest,
    remote: &Remote,
    store: &Store,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<FetchedContexts, BuildError> {
    let keep_git = request.build_args.iter().rfind(|(name, _)| name == KEEP_GIT_ARG);
    let keep_git =
        keep_git.and_then(|(_, value)| rbuild_frontend::number::parse_bool(value)).unwrap_or(false);
    let fetcher = Fetcher { remote, store, reporter, cancel, keep_git };
    let mut fetched = FetchedContexts::default();
    if let ContextSource::Remote(url) = &request.context {
        let url = url.clone();
        fetched.main = true;
        fetched.main_url = Some(url.clone());
        let from_url = fetcher.context(&url).await?;
        if let (ContextSource::Empty, Some(text)) = &from_url {
            if request.dockerfile != DockerfileSource::Default {
                let problem = format!("ambiguous Dockerfile source: both `{url}` and -f are Dockerfiles");
                return Err(BuildError::Request(problem));
            }
            request.dockerfile = DockerfileSource::Text { name: url.redacted(), text: text.clone() };
        }
        request.context = from_url.0;
    }
    if let DockerfileSource::Url(url) = &request.dockerfile {
        let url = url.clone();
        let file = fetcher.file("load remote dockerfile", &url).await?;
        let text = fetcher.text(&url, &file)?;
        request.dockerfile = DockerfileSource::Text { name: url.redacted(), text };
    }
    for (name, context) in &request.named_contexts {
        let NamedContext::Remote(url) = context else { continue };
        let (dir, staged) = fetcher.named(name, url).await?;
        fetched.named.insert(name.clone(), dir);
        fetched._staged.extend(staged);
    }
    Ok(fetched)
}

/// The time of what is behind a URL: that of the commit, `Last-Modified`, or that of the newest file of an archive.
pub(crate) async fn time_of(
    url: &RemoteUrl,
    remote: &Remote,
    store: &Store,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Option<i64>, BuildError> {
    let fetcher = Fetcher { remote, store, reporter, cancel, keep_git: false };
    let title = "load time of";
    if let Ok(parsed) = GitRef::parse(url.secret()) {
        // Every file of such a checkout is dated like the commit.
        let op = GitOp { mtime: GitTime::Commit, ..parsed.into_op() };
        let dir = fetcher.step(title, url, async |step| remote.tree(&op, step).await).await?;
        return crate::epoch::newest(&dir).map(Some);
    }
    let file = fetcher.file(title, url).await?;
    if file.modified.is_some() || !fetcher.is_archive(url, &file)? {
        return Ok(file.modified);
    }
    let unpacked = crate::dockerfile::unpack_context(&store.blob_path(&file.digest), store)?;
    crate::epoch::newest(&unpacked.upper).map(Some)
}

struct Fetcher<'a> {
    remote: &'a Remote,
    store: &'a Store,
    reporter: &'a Reporter,
    cancel: &'a CancellationToken,
    /// [`KEEP_GIT_ARG`] says so.
    keep_git: bool,
}

impl Fetcher<'_> {
    /// The main context, and the Dockerfile if that is what is behind the URL.
    async fn context(&self, url: &RemoteUrl) -> Result<(ContextSource, Option<Vec<u8>>), BuildError> {
        if let Some(dir) = self.git("load git source", url, self.keep_git).await? {
            return Ok((ContextSource::Directory(dir), None));
        }
        let file = self.file("load remote build context", url).await?;
        let path = self.store.blob_path(&file.digest);
        if self.is_archive(url, &file)? {
            return Ok((ContextSource::Archive(path), None));
        }
        Ok((ContextSource::Empty, Some(self.text(url, &file)?)))
    }

    /// A named context: a checkout, or a directory that holds the one file.
    async fn named(&self, name: &str, url: &RemoteUrl) -> Result<(PathBuf, Option<LayerIngest>), BuildError> {
        let title = format!("context {name}");
        if let Some(dir) = self.git(&title, url, false).await? {
            return Ok((dir, None));
        }
        let file = self.file(&title, url).await?;
        let staged = self.store.new_layer_dir()?;
        let path = staged.upper.join(rbuild_frontend::filename_of_url(url.secret()));
        let io = |source| BuildError::Io { action: "cannot write", path: path.display().to_string(), source };
        std::fs::copy(self.store.blob_path(&file.digest), &path).map_err(io)?;
        let written = File::options().write(true).open(&path).map_err(io)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        written.set_permissions(mode).map_err(io)?;
        let seconds = u64::try_from(file.modified.unwrap_or(0)).unwrap_or(0);
        written.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).map_err(io)?;
        Ok((staged.upper.clone(), Some(staged)))
    }

    /// The checkout, if the URL is that of a repository. What the URL says about `.git` counts more than `keep_git`.
    async fn git(&self, title: &str, url: &RemoteUrl, keep_git: bool) -> Result<Option<PathBuf>, BuildError> {
        let op = match GitRef::parse(url.secret()) {
            Ok(mut parsed) => {
                parsed.keep_git_dir.get_or_insert(keep_git);
                parsed.into_op()
            }
            Err(GitRefError::NotGit(_)) => return Ok(None),
            Err(error) => return Err(BuildError::Request(format!("{url}: {error}"))),
        };
        self.step(title, url, async |step| self.remote.tree(&op, step).await).await.map(Some)
    }

    async fn file(&self, title: &str, url: &RemoteUrl) -> Result<HttpFile, BuildError> {
        let op =
            HttpOp { url: url.clone(), checksum: None, filename: String::new(), mode: 0o600, uid: 0, gid: 0 };
        self.step(title, url, async |step| self.remote.file(&op, step).await).await
    }

    /// Reports work as a step.
    async fn step<T>(
        &self,
        title: &str,
        url: &RemoteUrl,
        work: impl AsyncFnOnce(&StepContext) -> Result<T, OpError>,
    ) -> Result<T, BuildError> {
        let name = if title.starts_with("context ") {
            format!("[{title}] {url}")
        } else {
            format!("[internal] {title} {url}")
        };
        let step = StepContext {
            vertex: self.reporter.declare(name.clone()),
            reporter: self.reporter.clone(),
            cancel: self.cancel.child_token(),
        };
        let vertex = step.vertex;
        self.reporter.report(Event::Started { vertex, at: SystemTime::now() });
        let done = work(&step).await;
        let at = SystemTime::now();
        match done {
            Ok(done) => {
                self.reporter.report(Event::Completed { vertex, at });
                Ok(done)
            }
            Err(_) if self.cancel.is_cancelled() => {
                self.reporter.report(Event::Canceled { vertex, at });
                Err(BuildError::Canceled)
            }
            Err(source) => {
                self.reporter.report(Event::Failed { vertex, at, error: source.to_string() });
                Err(BuildError::Step { name, excerpt: String::new(), source })
            }
        }
    }

    fn is_archive(&self, url: &RemoteUrl, file: &HttpFile) -> Result<bool, BuildError> {
        let archive = self.store.open_blob(&file.digest)?;
        rbuild_layer::is_archive(archive).map_err(|error| BuildError::Request(format!("{url}: {error}")))
    }

    fn text(&self, url: &RemoteUrl, file: &HttpFile) -> Result<Vec<u8>, BuildError> {
        if file.size > MAX_DOCKERFILE {
            let problem = format!(
                "{url}: it is neither an archive nor a Dockerfile: larger than {MAX_DOCKERFILE} bytes"
            );
            return Err(BuildError::Request(problem));
        }
        Ok(self.store.read_blob(&file.digest, MAX_DOCKERFILE)?)
    }
}
