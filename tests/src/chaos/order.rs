//! What clients start, and what must come of it.

use serde_json::{Value, json};

/// Milliseconds of the pauses in `chaos.yaml` that the input sets.
const PAUSES_MS: [u64; 4] = [200, 300, 400, 500];

/// Times that the long workflow goes round, as `chaos.yaml` says.
const ROUNDS: usize = 80;

/// One order in so many is a long one, which costs as much as fifty others.
const LONG: u32 = 64;

/// A workflow of `chaos.yaml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Chain,
    Effect,
    Timed,
    Parallel,
    Flaky,
    Declined,
    Cancelled,
    Drawn,
    Signalled,
    Parent,
    Long,
}

impl Kind {
    pub(super) const ALL: [Self; 11] = [
        Self::Chain,
        Self::Effect,
        Self::Timed,
        Self::Parallel,
        Self::Flaky,
        Self::Declined,
        Self::Cancelled,
        Self::Drawn,
        Self::Signalled,
        Self::Parent,
        Self::Long,
    ];

    fn random(random: &mut fastrand::Rng) -> Self {
        if random.u32(..LONG) == 0 {
            return Self::Long;
        }
        // The long one is the last.
        Self::ALL[random.usize(..Self::ALL.len() - 1)]
    }

    pub(super) fn workflow(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::Effect => "effect",
            Self::Timed => "timed",
            Self::Parallel => "parallel",
            Self::Flaky => "flaky",
            Self::Declined => "declined",
            Self::Cancelled => "cancelled",
            Self::Drawn => "drawn",
            Self::Signalled => "signalled",
            Self::Parent => "parent",
            Self::Long => "long",
        }
    }

    /// How many effects an execution has.
    pub(super) fn marks(self) -> usize {
        match self {
            Self::Effect | Self::Timed | Self::Parallel | Self::Declined => 1,
            Self::Long => ROUNDS,
            Self::Chain
            | Self::Flaky
            | Self::Cancelled
            | Self::Drawn
            | Self::Signalled
            | Self::Parent => 0,
        }
    }

    /// How many children an execution has.
    pub(super) fn children(self) -> usize {
        usize::from(self == Self::Parent)
    }
}

/// One execution that a client wants.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) kind: Kind,
    /// Its idempotency key.
    pub(super) key: String,
    n: u64,
    pause_ms: u64,
}

impl Order {
    pub(super) fn random(random: &mut fastrand::Rng, key: String) -> Self {
        Self {
            kind: Kind::random(random),
            key,
            n: random.u64(..1_000_000),
            pause_ms: PAUSES_MS[random.usize(..PAUSES_MS.len())],
        }
    }

    pub(super) fn input(&self) -> Value {
        json!({ "n": self.n, "mark": self.key, "pause": format!("{}ms", self.pause_ms) })
    }

    /// What the signal brings that it waits for, if it does.
    pub(super) fn payment(&self) -> Value {
        json!({ "paid": self.n, "by": self.key })
    }

    /// Why it is cancelled, if it is.
    pub(super) fn reason(&self) -> String {
        format!("cancelled by {}", self.key)
    }

    /// What an effect of it leaves each time that it runs.
    pub(super) fn mark(&self) -> Value {
        json!({ "mark": self.key })
    }

    /// `status`, `output` and `error` of its end, worked out by hand from
    /// `chaos.yaml`; of `found` is only taken what chance decides.
    pub(super) fn end(&self, found: &Value) -> Value {
        let n = self.n;
        let completed =
            |output: Value| json!({ "status": "completed", "output": output, "error": null });
        match self.kind {
            Kind::Chain => completed(json!({ "n": ((n + 1) * 2 + 3) * 2 + 5 })),
            Kind::Effect => completed(json!({ "n": (n + 1) * 2, "mark": self.key })),
            Kind::Timed => completed(json!({ "n": (n + 1) * 3, "mark": self.key })),
            Kind::Parallel => completed(json!({ "n": 4 * n + 1 + 2 + 3 + 4 })),
            Kind::Flaky => completed(json!({ "n": n })),
            Kind::Drawn => completed(json!({ "drawn": found["output"]["drawn"].as_u64() })),
            Kind::Signalled => completed(json!({ "n": (n + 1) * 2, "paid": self.payment() })),
            Kind::Parent => completed(json!({ "n": (n + 1) * 3 * 2 })),
            Kind::Long => completed(json!({ "n": n + 80 })),
            Kind::Declined => json!({
                "status": "failed",
                "output": null,
                "error": { "error": "Declined", "message": format!("order {n}"), "state": "Decline" },
            }),
            Kind::Cancelled => json!({
                "status": "cancelled",
                "output": null,
                "error": { "error": "Cancelled", "message": self.reason() },
            }),
        }
    }
}

/// `status`, `output` and `error` of an execution as the API shows it.
pub(super) fn end_of(view: &Value) -> Value {
    json!({ "status": view["status"], "output": view["output"], "error": view["error"] })
}
