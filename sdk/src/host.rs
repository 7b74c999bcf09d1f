//! The calls to the host: imports on Wasm, the test harness natively.
//!
//! Both files have the same functions, so the modules above them exist once.

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod wasm;

/// What `wit/activity.wit` says, in Rust, written by `scripts/bindings.sh`.
#[cfg(target_family = "wasm")]
#[rustfmt::skip]
#[expect(missing_docs, unreachable_pub, reason = "generated; wit/activity.wit says it all")]
pub mod bindings;

#[cfg(not(target_family = "wasm"))]
pub(crate) use native::*;

#[cfg(test)]
mod tests {
    /// The hash is FNV-1a with 64 bits, as in `scripts/bindings`.
    #[test]
    fn the_bindings_are_those_of_the_contract() {
        let contract = include_bytes!("../wit/activity.wit");
        let hash = contract
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let head = include_str!("host/bindings.rs").lines().next();
        assert_eq!(
            head,
            Some(
                format!(
                    "// Written by scripts/bindings.sh from sdk/wit/activity.wit ({hash:016x})."
                )
                .as_str()
            ),
            "run scripts/bindings.sh"
        );
    }
}
#[cfg(target_family = "wasm")]
pub(crate) use wasm::*;
