//! From tokio to threads that may block or compute.

use rbuild_solver::OpError;
use rbuild_store::Store;

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

/// [`blocking`] work that writes to the store: it is done once more if the disk was full and unused cache could be removed.
pub(crate) async fn writing<T>(
    store: &Store,
    work: impl Fn() -> Result<T, OpError> + Send + 'static,
) -> Result<T, OpError>
where
    T: Send + 'static,
{
    let store = store.clone();
    blocking(move || match work() {
        Err(error) if store.makes_room_after(&*error) => work(),
        done => done,
    })
    .await
}
