//! Finding and reading the Dockerfile, its ignore file, and an archive context.

use crate::error::BuildError;
use crate::request::{BuildRequest, ContextSource, DockerfileSource};
use rbuild_context::Ignore;
use rbuild_store::{LayerIngest, Store};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Longest Dockerfile that is read.
const MAX_DOCKERFILE: u64 = 64 << 20;
/// Longest ignore file that is read.
const MAX_IGNORE: u64 = 1 << 20;

/// What a build starts from.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// The Dockerfile's name in messages.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) text: Vec<u8>,
    /// The main context's directory; `None` is no files.
    pub(crate) context: Option<PathBuf>,
    /// The directory that the Dockerfile is in; if it is in none, the context's.
    pub(crate) dir: Option<PathBuf>,
    /// Its ignore rules.
    pub(crate) ignore: Option<Ignore>,
    /// The time of what SOURCE_DATE_EPOCH names.
    pub(crate) epoch: Option<i64>,
    /// Keeps an unpacked archive context.
    _unpacked: Option<LayerIngest>,
}

/// Reads what the request names. An archive context is unpacked into the store's ingest directory.
///
/// `fetched` says that the context came from elsewhere: like an archive it is complete in itself.
pub(crate) fn read_inputs(
    request: &BuildRequest,
    fetched: bool,
    store: &Store,
) -> Result<Inputs, BuildError> {
    let (context, unpacked) = match &request.context {
        ContextSource::Directory(dir) => (Some(dir.clone()), None),
        ContextSource::Empty => (None, None),
        ContextSource::Remote(url) => return Err(BuildError::Internal(format!("{url} was not fetched"))),
        ContextSource::Archive(file) => {
            let unpacked = unpack_context(file, store)?;
            (Some(unpacked.upper.clone()), Some(unpacked))
        }
    };
    let complete = fetched || unpacked.is_some();
    let (name, path, text) = dockerfile_text(request, context.as_deref(), complete)?;
    // what was sent or fetched as a whole is what is meant.
    let ignore = if complete { None } else { ignore_rules(context.as_deref(), path.as_deref())? };
    let dir = match &path {
        Some(path) => path.parent().map(Path::to_owned),
        None => context.clone(),
    };
    Ok(Inputs { name, text, context, dir, ignore, epoch: None, _unpacked: unpacked })
}

/// The name and the bytes of the Dockerfile that a request names. A context that is an archive or has to be fetched cannot
/// be looked into.
///
/// # Errors
/// When it cannot be read.
pub fn read_dockerfile(request: &BuildRequest) -> Result<(String, Vec<u8>), BuildError> {
    let context = match &request.context {
        ContextSource::Directory(dir) => Some(dir.as_path()),
        ContextSource::Empty => None,
        ContextSource::Archive(_) | ContextSource::Remote(_) => {
            let problem = "the context is no directory: give one, or a Dockerfile with -f";
            return Err(BuildError::Request(problem.into()));
        }
    };
    let (name, _, text) = dockerfile_text(request, context, false)?;
    Ok((name, text))
}

/// Why the text that [`read_dockerfile`] gave is nothing that could be built: it is meant for another frontend.
pub fn other_frontend(request: &BuildRequest, text: &[u8]) -> Option<rbuild_frontend::Diagnostic> {
    crate::lower::other_frontend(&request.build_args, text)
}

/// Name, path (if it is a file) and bytes of the Dockerfile. The files of a `complete` context are somebody else's: their
/// links lead nowhere outside it.
fn dockerfile_text(
    request: &BuildRequest,
    context: Option<&Path>,
    complete: bool,
) -> Result<(String, Option<PathBuf>, Vec<u8>), BuildError> {
    Ok(match &request.dockerfile {
        DockerfileSource::Url(url) => {
            return Err(BuildError::Request(format!("`{url}` has to be fetched: only a build does that")));
        }
        DockerfileSource::Text { name, text } => (name.clone(), None, text.clone()),
        DockerfileSource::Default => {
            let dir = context.ok_or_else(|| BuildError::Request("there is no Dockerfile".into()))?;
            let (name, text) = default_dockerfile(dir, complete)?;
            (name.to_owned(), Some(dir.join(name)), text)
        }
        DockerfileSource::Path(path) => {
            let read = |path: &Path| {
                let full = match (context, complete) {
                    (Some(dir), true) => confined(dir, path)?,
                    _ => path.to_owned(),
                };
                Ok::<_, BuildError>((read_bounded(&full, MAX_DOCKERFILE), full))
            };
            let (mut text, mut full) = read(path)?;
            let mut name = path.clone();
            // the default name may be in lower case elsewhere, too.
            let missing = text.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
            if missing && path.file_name().is_some_and(|name| name == "Dockerfile") {
                let lower = path.with_file_name("dockerfile");
                if let (Ok(found), other) = read(&lower)? {
                    (text, full, name) = (Ok(found), other, lower);
                }
            }
            let text = text.map_err(|error| not_read(path, error))?;
            (name.display().to_string(), Some(full), text)
        }
    })
}

/// `Dockerfile`, else `dockerfile`.
fn default_dockerfile(dir: &Path, foreign: bool) -> Result<(&'static str, Vec<u8>), BuildError> {
    for name in ["Dockerfile", "dockerfile"] {
        // A link in somebody else's tree must not lead out of it.
        let path = if foreign { confined(dir, Path::new(name))? } else { dir.join(name) };
        match read_bounded(&path, MAX_DOCKERFILE) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(not_read(&dir.join(name), error)),
            Ok(text) => return Ok((name, text)),
        }
    }
    let problem = format!(
        "failed to read dockerfile: there is no `Dockerfile` in `{}`: name it with -f",
        dir.display()
    );
    Err(BuildError::Request(problem))
}

fn not_read(path: &Path, source: std::io::Error) -> BuildError {
    if source.kind() == ErrorKind::NotFound {
        return BuildError::Request(format!("failed to read dockerfile: `{}`: no such file", path.display()));
    }
    if source.kind() == ErrorKind::InvalidData {
        return BuildError::Request(format!("failed to read dockerfile: `{}`: {source}", path.display()));
    }
    BuildError::Io { action: "failed to read dockerfile", path: path.display().to_string(), source }
}

/// Reads a regular file of at most `max` bytes; FIFOs and devices are refused, so that nothing blocks.
pub(crate) fn read_bounded(path: &Path, max: u64) -> std::io::Result<Vec<u8>> {
    let invalid = |text: String| std::io::Error::new(ErrorKind::InvalidData, text);
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() {
        return Err(invalid("it is not a regular file".into()));
    }
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(max + 1).read_to_end(&mut text)?;
    if text.len() as u64 > max {
        return Err(invalid(format!("it is larger than {max} bytes")));
    }
    Ok(text)
}

/// A path of an archive context, without symlinks that lead out of it.
fn confined(dir: &Path, path: &Path) -> Result<PathBuf, BuildError> {
    use std::os::unix::ffi::OsStrExt as _;
    let invalid =
        |error: &dyn std::fmt::Display| BuildError::Request(format!("`{}`: {error}", path.display()));
    let inside =
        rbuild_tree::TreePath::clamped(path.as_os_str().as_bytes()).map_err(|error| invalid(&error))?;
    let tree = rbuild_tree::DirTree::open(dir).map_err(|error| invalid(&error))?;
    let found = rbuild_tree::resolve(&tree, &inside, true).map_err(|error| invalid(&error))?;
    Ok(dir.join(found.path.as_path()))
}

/// `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` in the context.
fn ignore_rules(context: Option<&Path>, dockerfile: Option<&Path>) -> Result<Option<Ignore>, BuildError> {
    let Some(context) = context else { return Ok(None) };
    let own = dockerfile.map(|path| {
        let mut own = path.as_os_str().to_owned();
        own.push(".dockerignore");
        PathBuf::from(own)
    });
    for path in own.into_iter().chain([context.join(".dockerignore")]) {
        match read_bounded(&path, MAX_IGNORE) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => {
                return Err(BuildError::Io {
                    action: "cannot read",
                    path: path.display().to_string(),
                    source,
                });
            }
            Ok(content) => return parse_ignore(&path, &content).map(Some),
        }
    }
    Ok(None)
}

fn parse_ignore(path: &Path, content: &[u8]) -> Result<Ignore, BuildError> {
    let name = path
        .file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    Ignore::parse(&name, content).map_err(|error| BuildError::Request(error.to_string()))
}

/// The ignore rules of a named local context.
pub(crate) fn named_context_rules(dir: &Path) -> Result<Option<Ignore>, BuildError> {
    ignore_rules(Some(dir), None)
}

pub(crate) fn unpack_context(file: &Path, store: &Store) -> Result<LayerIngest, BuildError> {
    let failed =
        |error: &dyn std::fmt::Display| BuildError::Request(format!("unpacking the build context: {error}"));
    let ingest = store.new_layer_dir()?;
    let archive = std::fs::File::open(file).map_err(|error| failed(&error))?;
    let dest = std::fs::File::open(&ingest.upper).map_err(|error| failed(&error))?;
    rbuild_layer::unpack_archive(archive, &std::sync::Arc::new(dest.into()), &Default::default())
        .map_err(|error| failed(&error))?;
    Ok(ingest)
}
