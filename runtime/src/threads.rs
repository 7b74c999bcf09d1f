//! What the scheduler of the operating system is told of threads.

use std::io;
use std::time::Duration;

/// How long a thread that hurries would go on at a time: the shortest that Linux grants.
const SHORT: Duration = Duration::from_micros(100);

/// How long one that stands back would. It is longer, or those that hurry could not break in at
/// any time. It is shorter than usual (some milliseconds) since for so long not even the
/// kernel's own threads break in, among them those that pass on what is written to a disk.
const MIDDLE: Duration = Duration::from_micros(200);

/// Asks for short turns, which come soon, for this thread and those that it starts from now on.
///
/// A request and a commit need a core for microseconds at each step of their way, and where
/// guests compute, a thread that has just begun its turn is let finish it: a millisecond or
/// more. Linux lets it go on no longer than the shortest turn that anybody waits for (6.12
/// takes `sched_runtime` for that, earlier ones do not look at it).
pub(crate) fn hurry() {
    // It goes on as it is where that is not allowed.
    if let Err(error) = turns(SHORT) {
        tracing::debug!(%error, "threads have turns of the usual length");
    }
}

/// Has this thread stand back behind others (`nice`), with turns of a middle length.
pub(crate) fn stand_back(nice: i32) -> io::Result<()> {
    // By itself, since this is allowed where the length of turns is not. On Linux a thread has
    // a priority of its own.
    rustix::process::setpriority_process(None, nice)?;
    if let Err(error) = turns(MIDDLE) {
        tracing::debug!(%error, "a thread that stands back keeps its turns");
    }
    Ok(())
}

/// Sets the length of turns; zero is the usual one.
#[cfg(target_os = "linux")]
fn turns(length: Duration) -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).unwrap_or_default(),
        sched_policy: libc::SCHED_OTHER.cast_unsigned(),
        sched_flags: 0,
        sched_nice: rustix::process::getpriority_process(None)?,
        sched_priority: 0,
        sched_runtime: u64::try_from(length.as_nanos()).unwrap_or_default(),
        sched_deadline: 0,
        sched_period: 0,
    };
    let (this, flags): (libc::c_long, libc::c_long) = (0, 0);
    // SAFETY: the call reads the structure, which says how large it is, and keeps nothing of it.
    let done =
        unsafe { libc::syscall(libc::SYS_sched_setattr, this, &raw const attributes, flags) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(not(target_os = "linux"))]
fn turns(_: Duration) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the system says that it has noted.
    #[cfg(target_os = "linux")]
    fn noted() -> (i32, u64) {
        let mut noted = libc::sched_attr {
            size: 0,
            sched_policy: 0,
            sched_flags: 0,
            sched_nice: 0,
            sched_priority: 0,
            sched_runtime: 0,
            sched_deadline: 0,
            sched_period: 0,
        };
        let size = u32::try_from(size_of::<libc::sched_attr>()).expect("it is small");
        let (this, size, flags): (libc::c_long, libc::c_long, libc::c_long) = (0, size.into(), 0);
        // SAFETY: the call writes as much as it is told that there is room for.
        let done =
            unsafe { libc::syscall(libc::SYS_sched_getattr, this, &raw mut noted, size, flags) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        (noted.sched_nice, noted.sched_runtime)
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn turns_are_short_for_those_that_hurry_and_longer_for_those_that_stand_back() {
        let own = |length| {
            let noted = std::thread::spawn(move || {
                turns(length).expect("allowed");
                // What it starts is as it is.
                std::thread::spawn(noted).join().expect("told")
            });
            noted.join().expect("told")
        };
        let (usual, short) = (own(Duration::ZERO), own(SHORT));
        assert_eq!(usual.0, short.0, "nobody stands back");
        // Linux before 6.12 knows no turns of other lengths.
        if usual.1 != 0 {
            assert_eq!(short.1, 100_000);
            assert!(usual.1 > short.1, "{usual:?}");
        }
        let back = std::thread::spawn(move || {
            hurry();
            stand_back(usual.0 + 5).expect("a thread may stand back");
            noted()
        });
        let back = back.join().expect("told");
        let expected = if usual.1 == 0 { 0 } else { 200_000 };
        assert_eq!(back, (usual.0 + 5, expected));
    }
}
