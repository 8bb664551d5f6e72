//! Which error ends with which exit code (DESIGN section 7).

use rbuild_build::BuildError;
use std::process::ExitCode;

/// The user asked for something that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(String);

impl Usage {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// 1 a build step failed · 2 usage or Dockerfile · 3 registry or network · 4 environment or sandbox · 5 internal.
pub(crate) fn code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Usage>() {
        return ExitCode::from(2);
    }
    if let Some(error) = error.downcast_ref::<BuildError>() {
        return ExitCode::from(error.kind().exit_code());
    }
    if error.is::<rbuild_store::StoreError>() || error.is::<std::io::Error>() {
        return ExitCode::from(4);
    }
    ExitCode::from(5)
}
