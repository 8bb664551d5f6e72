//! From tokio to threads that may block or compute.

use rbuild_solver::OpError;

/// Runs blocking or computing work on a thread of its own and waits for it without blocking the runtime. Work that is
/// parallel inside uses rayon's pool from there.
pub(crate) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, OpError>
where
    T: Send + 'static,
    E: Into<OpError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(Box::new(error)),
        },
    }
}
