//! Changes that go to their end: first the store, then what memory makes of it.

use std::panic::resume_unwind;

/// Makes a change to its end, even if nobody waits for it any more.
///
/// The work of a request is dropped when its client hangs up. Between the store
/// and the memory of this process, that would leave the two apart until the
/// next start.
pub(crate) async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = T> + Send + 'static,
) -> T {
    match tokio::spawn(change).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime ends, and whoever waits here with it.
            Err(_) => std::future::pending().await,
        },
    }
}
