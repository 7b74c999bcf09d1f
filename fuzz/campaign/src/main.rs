//! One target under libFuzzer: `scripts/fuzz` builds and starts it.

#![no_main]

use std::sync::OnceLock;

use cascade_fuzz::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    let target = CHOSEN.get_or_init(|| {
        let name = std::env::var("CASCADE_FUZZ_TARGET").expect("CASCADE_FUZZ_TARGET names a target");
        cascade_fuzz::target(&name).expect("a target of this name")
    });
    (target.run)(data);
});
