//! Signs of life of a long activity.

use crate::host;

/// Says that the activity is alive, which starts its state's `heartbeat` time anew.
///
/// Cheap, but not free: once per unit of work that takes a noticeable time is
/// right, once per byte is not.
pub fn beat() {
    host::beat();
}
