#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: a broken promise ends it"
)]

use super::*;

const LIMITS: ProcessLimits = ProcessLimits {
    memory_bytes: 1 << 30,
    processor_s: 10,
    output_bytes: 1 << 20,
};

#[test]
fn without_a_host_the_work_is_done_on_a_thread() {
    static REVERSE: Work = Work {
        name: "reverse",
        run: |arguments, input| match input {
            [] => Err(format!("nothing to {}", arguments[0])),
            [9, ..] => panic!("a bug"),
            bytes => Ok(bytes.iter().rev().copied().collect()),
        },
    };
    let run = |input: &[u8]| run(&REVERSE, &["turn".into()], input, &LIMITS);
    assert_eq!(run(&[1, 2, 3]), Ok(vec![3, 2, 1]));
    assert_eq!(run(&[]), Err(Failure::Refused("nothing to turn".into())));
    assert!(matches!(run(&[9]), Err(Failure::Broken(_))));
}

#[test]
fn an_inspection_finds_what_the_library_finds() {
    let text = br#"(module (memory (export "memory") 1) (func (export "_start")))"#;
    let found = inspect("tiny", text).unwrap();
    assert_eq!(found, taskmaster_module::inspect("tiny", text));
    assert!(found.check.ok && found.check.version.is_some());
}
