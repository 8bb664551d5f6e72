//! The result, where the user wants it.

mod trees;

use crate::error::BuildError;
use crate::keep::Kept;
use crate::request::{BuildRequest, Destination, Output};
use rbuild_export::{ExportError, ExportImage};
use rbuild_oci::{Platform, Reference};
use rbuild_op::{Engine, Root};
use rbuild_solver::{OpError, StepContext};
use rbuild_store::Store;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// What an output needs to know of a build.
pub(crate) struct Finished<'a> {
    pub(crate) store: &'a Store,
    pub(crate) engine: &'a Arc<Engine>,
    /// The root filesystem of each platform; `None` is an empty one.
    pub(crate) trees: Vec<(&'a Platform, Option<&'a Root>)>,
    /// Whether the result is an index, even if of one image.
    pub(crate) is_index: bool,
    /// What is in the store; `None` if no output wanted an image.
    pub(crate) kept: Option<&'a Kept>,
    /// The names it has.
    pub(crate) names: &'a [Reference],
    pub(crate) epoch: Option<i64>,
}

/// Whether an output is made of the image's blobs.
pub(crate) fn wants_image(output: &Output) -> bool {
    match output {
        Output::Oci { .. } | Output::Docker { .. } | Output::Image { .. } => true,
        Output::Local { .. } | Output::Tar { .. } | Output::CacheOnly => false,
    }
}

/// Whether an output needs all of the image's blobs here.
pub(crate) fn writes_image(output: &Output) -> bool {
    matches!(output, Output::Oci { .. } | Output::Docker { .. })
}

/// Whether the image is meant for the store, and not only for somewhere else.
pub(crate) fn keeps_image(outputs: &[Output]) -> bool {
    let is_kept = |output: &Output| {
        matches!(output, Output::Image { push: false, .. } | Output::Docker { dest: None, .. })
    };
    outputs.is_empty() || outputs.iter().any(is_kept)
}

/// Refuses outputs that cannot hold what is to be built, before it is.
pub(crate) fn check(request: &BuildRequest) -> Result<(), BuildError> {
    let is_docker = |output: &Output| matches!(output, Output::Docker { .. });
    if request.makes_index() && request.outputs.iter().any(is_docker) {
        return Err(BuildError::Request(ExportError::SeveralPlatforms.to_string()));
    }
    Ok(())
}

/// What the progress view calls it.
pub(crate) fn title(output: &Output) -> &'static str {
    match output {
        Output::Oci { .. } => "exporting to oci image format",
        Output::Docker { .. } => "exporting to docker image format",
        Output::Local { .. } => "exporting to client directory",
        Output::Tar { .. } => "exporting to client tarball",
        Output::Image { .. } | Output::CacheOnly => "exporting to image",
    }
}

/// Writes one output.
pub(crate) async fn write(
    output: &Output,
    build: &Finished<'_>,
    step: &StepContext,
) -> Result<(), BuildError> {
    match output {
        Output::Oci { dest, tar, names } => {
            write_image(build, dest.clone(), if *tar { Form::OciTar } else { Form::OciDir }, names).await
        }
        Output::Docker { dest: Some(dest), names } => {
            write_image(build, dest.clone(), Form::Docker, names).await
        }
        Output::Local { dir, split } => trees::write_local(build, dir, *split, step).await,
        Output::Tar { dest, split } => trees::write_tar(build, dest, *split, step).await,
        // These are in the store and in the registry already.
        Output::Docker { dest: None, .. } | Output::Image { .. } | Output::CacheOnly => Ok(()),
    }
}

/// Files an image can be written to.
#[derive(Clone, Copy)]
enum Form {
    OciTar,
    OciDir,
    Docker,
}

async fn write_image(
    build: &Finished<'_>,
    dest: Destination,
    form: Form,
    more_names: &[Reference],
) -> Result<(), BuildError> {
    let kept = build.kept.expect("an output of an image made one");
    let more_names = more_names.iter().filter(|name| !build.names.contains(name));
    let names = build.names.iter().chain(more_names).cloned();
    let mut image = ExportImage::new(kept.descriptor.clone(), names);
    image.created.clone_from(&kept.created);
    let store = build.store.clone();
    on_thread(move || match (form, dest) {
        (Form::OciDir, Destination::Path(dir)) => {
            Ok(rbuild_export::write_oci_layout_dir(&store, &image, &dir)?)
        }
        (Form::OciDir, Destination::Stdout) => {
            Err("a directory cannot be written to standard output: use tar=true".into())
        }
        (Form::Docker, dest) => {
            to_file(&dest, |file| Ok(rbuild_export::write_docker_archive(&store, &image, file)?))
        }
        (Form::OciTar, dest) => {
            to_file(&dest, |file| Ok(rbuild_export::write_oci_archive(&store, &image, file)?))
        }
    })
    .await
}

/// A file appears whole or not at all; standard output is written as it comes.
fn to_file(dest: &Destination, write: impl FnOnce(File) -> Result<File, OpError>) -> Result<(), OpError> {
    match dest {
        Destination::Path(path) => write_beside(path, write),
        Destination::Stdout => {
            let out = rustix::io::dup(rustix::stdio::stdout())?;
            write(File::from(out)).map(drop)
        }
    }
}

fn write_beside(path: &Path, write: impl FnOnce(File) -> Result<File, OpError>) -> Result<(), OpError> {
    let mut failed = None;
    let written = rbuild_export::write_file(path, |file| {
        write(file).map(drop).map_err(|error| {
            let text = error.to_string();
            failed = Some(error);
            rbuild_export::ExportError::io("write", path, std::io::Error::other(text))
        })
    });
    match (failed, written) {
        (Some(error), _) => Err(error),
        (None, written) => Ok(written?),
    }
}

async fn on_thread(work: impl FnOnce() -> Result<(), OpError> + Send + 'static) -> Result<(), BuildError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(BuildError::Export),
        Err(error) => Err(BuildError::Internal(format!("writing an output: {error}"))),
    }
}
