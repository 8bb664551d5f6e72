//! Limits of RUN steps: whether this machine has them, found out before anything is executed.

use crate::error::BuildError;
use crate::request::BuildRequest;
use rbuild_ir::{Op, Vertex};

/// Refuses limits that cannot be applied here, if there is any step for them, and notes in the request what was found.
pub(crate) async fn check(vertices: &[Vertex], request: &mut BuildRequest) -> Result<(), BuildError> {
    let runs = vertices.iter().any(|vertex| matches!(vertex.op, Op::Exec(_)));
    let Some(mut cgroup) = request.cgroup.take().filter(|_| runs) else { return Ok(()) };
    let checked = tokio::task::spawn_blocking(move || cgroup.check().map(|()| cgroup)).await;
    let checked = checked.map_err(|error| BuildError::Internal(error.to_string()))?;
    request.cgroup = Some(checked.map_err(|error| BuildError::Environment(error.to_string()))?);
    Ok(())
}
