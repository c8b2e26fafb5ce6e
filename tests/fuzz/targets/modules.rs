//! Module files, binary and text: looked at without a panic, with the same answer each time, and
//! what would load has a kind and a version.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let found = taskmaster_module::inspect("m", data).check;
    assert_eq!(found.ok, found.error.is_none(), "{found:?}");
    assert!(
        !found.ok || (found.kind.is_some() && found.version.is_some()),
        "{found:?}"
    );
    assert_eq!(taskmaster_module::inspect("m", data).check, found);
});
