//! Capability `random`: true randomness.
//!
//! What `std` and the `getrandom` crate give without a capability is seeded by
//! the task, the same in every repetition: good for hash maps and sampling,
//! not for secrets. To call this module makes the activity impure.

use crate::host;

/// What the host gives at a time; the contract promises so much.
const CHUNK: usize = 64 * 1024;

/// Fills `buffer`.
pub fn fill(buffer: &mut [u8]) {
    for chunk in buffer.chunks_mut(CHUNK) {
        let len = u32::try_from(chunk.len()).unwrap_or(u32::MAX); // a chunk is at most 64 KiB
        chunk.copy_from_slice(&host::random_bytes(len));
    }
}

/// So many bytes.
pub fn bytes(len: usize) -> Vec<u8> {
    let mut buffer = vec![0; len];
    fill(&mut buffer);
    buffer
}

/// A number, all values equally likely.
pub fn u64() -> u64 {
    let mut buffer = [0; 8];
    fill(&mut buffer);
    u64::from_le_bytes(buffer)
}
