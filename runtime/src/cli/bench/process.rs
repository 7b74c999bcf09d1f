//! What processes use, as the kernel counts it.

use std::fs;

/// CPU time is counted in these; a constant of Linux's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of all threads so far, those of the kernel included.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything but ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

/// The most memory that was resident at a time, in bytes.
pub(crate) fn peak_memory(pid: u32) -> Option<u64> {
    status(pid, "VmHWM:")
}

/// The memory that is resident, in bytes.
pub(crate) fn memory(pid: u32) -> Option<u64> {
    status(pid, "VmRSS:")
}

fn status(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_counts_its_time() {
        let pid = std::process::id();
        let now = memory(pid).expect("the kernel tells");
        assert!(now > 1024 * 1024);
        assert!(peak_memory(pid).expect("the kernel tells") >= now);
        assert!(cpu_seconds(pid).is_some());
        assert_eq!(peak_memory(u32::MAX), None, "no such process");
    }
}
