//! The memory that hostile files take; alone in its process, so that the
//! process's peak is theirs.

use cascade_cdl::{MAX_FILE_BYTES, Source, parse};

/// What the issue allows, in kilobytes, the file itself included.
const ALLOWED_KB: usize = 200 * 1024;

/// Peak memory of this process, where the system tells.
fn peak_kb() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn hostile_files_stay_within_two_hundred_megabytes() {
    for item in [
        "[",
        "[a",
        "- ",
        "a:,",
        ":,",
        ",",
        "- a\n",
        "a",
        "a: &a\n",
        "- {a: b}\n",
        "'' ,",
    ] {
        for start in ["states: [", "", "- "] {
            let text = format!("{start}{}", item.repeat(MAX_FILE_BYTES / item.len() - 10));
            let parsed = parse(&Source {
                name: "hostile.yaml",
                bytes: text.as_bytes(),
            });
            assert!(parsed.application.is_none(), "{start}{item} was accepted");
            if let Some(peak) = peak_kb() {
                assert!(peak < ALLOWED_KB, "{start}{item} took {peak} kB");
            }
        }
    }
    println!("peak: {:?} kB", peak_kb());
}
