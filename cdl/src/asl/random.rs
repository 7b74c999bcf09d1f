//! Random numbers that are the same at every replay.

use std::cell::Cell;

use sha2::{Digest, Sha256};

use crate::ExecutionId;

/// A source of random numbers: SHA-256 over the execution, the evaluation and
/// a count. Nobody can foresee them who does not know the execution's id, and
/// a replay draws them again.
#[derive(Debug)]
pub(crate) struct Random {
    id: ExecutionId,
    seq: u64,
    drawn: Cell<u64>,
}

impl Random {
    /// The source of evaluation number `seq` of an execution.
    pub(crate) fn new(id: ExecutionId, seq: u64) -> Self {
        Self {
            id,
            seq,
            drawn: Cell::new(0),
        }
    }

    /// A source of its own for what an expression may draw, whose numbers
    /// differ from those that `parent` goes on to give.
    pub(crate) fn derived(parent: &Self) -> Self {
        let mut seed = [0; 8];
        seed.copy_from_slice(&parent.draw()[..8]);
        Self::new(parent.id, u64::from_be_bytes(seed))
    }

    fn draw(&self) -> [u8; 32] {
        let drawn = self.drawn.get();
        self.drawn.set(drawn + 1);
        Sha256::new()
            .chain_update(self.id.0.as_bytes())
            .chain_update(self.seq.to_be_bytes())
            .chain_update(drawn.to_be_bytes())
            .finalize()
            .into()
    }

    /// A UUID of version 4.
    pub(crate) fn uuid(&self) -> String {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.draw()[..16]);
        uuid::Builder::from_random_bytes(bytes)
            .into_uuid()
            .to_string()
    }

    /// A number from 0, below 1.
    pub(crate) fn unit(&self) -> f64 {
        unit(&self.draw())
    }
}

/// The number from 0, below 1, that a seed stands for: the same everywhere.
pub(crate) fn seeded_unit(seed: f64) -> f64 {
    unit(&Sha256::digest(seed.to_be_bytes()).into())
}

/// 2^53: a double's fraction has 53 bits.
const SCALE: f64 = 9_007_199_254_740_992.0;

fn unit(bytes: &[u8; 32]) -> f64 {
    let bits = bytes[..8]
        .iter()
        .fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte));
    #[expect(clippy::cast_precision_loss)] // 53 bits are exact
    let numerator = (bits >> 11) as f64;
    numerator / SCALE
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_evaluation_draws_the_same_again_and_another_draws_others() {
        let id = ExecutionId(Uuid::from_u128(7));
        let draw = |seq| {
            let random = Random::new(id, seq);
            (random.uuid(), random.uuid(), random.unit())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1).0, draw(1).1);
        assert_ne!(draw(1).0, draw(2).0);
        assert!((0.0..1.0).contains(&draw(3).2));
        let version = Uuid::parse_str(&draw(1).0).map(|uuid| uuid.get_version_num());
        assert_eq!(version, Ok(4));
    }
}
