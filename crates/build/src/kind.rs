//! Whose fault an error of an operation is.

use crate::error::ErrorKind;
use rbuild_copy::CopyError;
use rbuild_export::ExportError;
use rbuild_layer::{DecompressError, PackError};
use rbuild_op::OpFailure;
use rbuild_registry::{DownloadError, RegistryError};
use rbuild_runtime::RuntimeError;
use rbuild_snapshot::SnapshotError;
use rbuild_solver::OpError;

pub(crate) fn kind_of(error: &OpError) -> ErrorKind {
    // Whatever was being done: a full disk is the machine's affair.
    if rbuild_store::is_no_space(&**error) {
        return ErrorKind::Environment;
    }
    if let Some(failure) = error.downcast_ref::<OpFailure>() {
        return of_operation(failure);
    }
    if let Some(error) = error.downcast_ref::<RuntimeError>() {
        return match error {
            RuntimeError::User { .. } => ErrorKind::Step,
            error if error.exit_code().is_some() => ErrorKind::Step,
            _ => ErrorKind::Environment,
        };
    }
    if let Some(error) = error.downcast_ref::<CopyError>() {
        return if matches!(error, CopyError::Io { .. }) { ErrorKind::Environment } else { ErrorKind::Usage };
    }
    if let Some(error) = error.downcast_ref::<PackError>() {
        return of_packing(error);
    }
    if let Some(error) = error.downcast_ref::<SnapshotError>() {
        let internal = matches!(error, SnapshotError::InvalidRecipe { .. });
        return if internal { ErrorKind::Internal } else { ErrorKind::Environment };
    }
    if let Some(error) = error.downcast_ref::<ExportError>() {
        return of_export(error);
    }
    // What ADD was to unpack; layers of images come with their own errors.
    if error.is::<DecompressError>() {
        return ErrorKind::Usage;
    }
    if let Some(error) = error.downcast_ref::<DownloadError>() {
        return match error {
            DownloadError::BadUrl { .. } => ErrorKind::Usage,
            DownloadError::Sink { .. } => ErrorKind::Environment,
            _ => ErrorKind::Registry,
        };
    }
    if matches!(error.downcast_ref(), Some(rbuild_layer::UnpackError::Io { .. })) {
        return ErrorKind::Environment;
    }
    if error.is::<RegistryError>() || error.is::<rbuild_layer::UnpackError>() {
        return ErrorKind::Registry;
    }
    if error.is::<rbuild_store::StoreError>() || error.is::<std::io::Error>() {
        return ErrorKind::Environment;
    }
    ErrorKind::Internal
}

fn of_operation(failure: &OpFailure) -> ErrorKind {
    match failure {
        OpFailure::Process { .. } | OpFailure::Foreign(_) => ErrorKind::Step,
        OpFailure::Canceled => ErrorKind::Canceled,
        OpFailure::NotAllowed { .. } | OpFailure::LinkedName(_) | OpFailure::NameInEmptyRoot(_) => {
            ErrorKind::Usage
        }
        OpFailure::NoSecret(_) | OpFailure::NoAgent(_) | OpFailure::MountSource(_) => ErrorKind::Usage,
        OpFailure::Archive { source: rbuild_layer::UnpackError::Io { .. }, .. } => ErrorKind::Environment,
        OpFailure::Archive { .. } => ErrorKind::Usage,
        OpFailure::LayerLost(_) | OpFailure::DiskFull { .. } => ErrorKind::Environment,
        OpFailure::WrongDiffId { .. }
        | OpFailure::WrongChecksum { .. }
        | OpFailure::WrongCommit { .. }
        | OpFailure::NoGitReference { .. }
        | OpFailure::NoGitDirectory { .. }
        | OpFailure::Offline(_)
        | OpFailure::NotAsLocked { .. }
        | OpFailure::Git { .. } => ErrorKind::Registry,
        OpFailure::BadGitReference { .. } | OpFailure::BadSecret(_) | OpFailure::NotLocked(_) => {
            ErrorKind::Usage
        }
        OpFailure::NoGit(_) => ErrorKind::Environment,
    }
}

fn of_packing(error: &PackError) -> ErrorKind {
    match error {
        PackError::Changed { .. } | PackError::Read { .. } | PackError::Write(_) => ErrorKind::Environment,
        PackError::Unrepresentable { .. } | PackError::Level { .. } => ErrorKind::Usage,
        _ => ErrorKind::Internal,
    }
}

fn of_export(error: &ExportError) -> ErrorKind {
    match error {
        ExportError::NotALayout { .. }
        | ExportError::IsDirectory { .. }
        | ExportError::SeveralPlatforms
        | ExportError::Overwrite { .. } => ErrorKind::Usage,
        ExportError::Manifest { .. } => ErrorKind::Registry,
        // Files and streams that cannot be written.
        _ => ErrorKind::Environment,
    }
}
