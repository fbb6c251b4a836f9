//! libFuzzer's way in: `TARGET=receive` in the environment says which function it calls.
//!
//! `tests/deep fuzz` builds and runs this.
#![no_main]

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    let run = TARGET.get_or_init(|| {
        let name = std::env::var("TARGET").expect("TARGET says what is fuzzed");
        let find = |(target, _): &&targets::Target| *target == name;
        targets::TARGETS
            .iter()
            .find(find)
            .expect("no such target")
            .1
    });
    run(data);
});
