//! What is typed: durations, times, names, pins, pairs, states. What is read and can be written is
//! read as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use taskmaster_fuzz::{text, values};
use taskmaster_protocol::{EventFilter, Hash, JobName, ModuleName, ModuleRef, TaskId, Wall, near};

fuzz_target!(|data: &[u8]| {
    if let Some(us) = data.first_chunk() {
        // A time of the disk or of a peer is any number.
        let shown = Wall(i64::from_le_bytes(*us)).to_string();
        assert!(shown.ends_with('Z'), "{shown}");
    }
    let text = text(data);
    if let Ok(span) = text.parse::<values::TimeSpan>() {
        assert!(u128::from(span.ms()) * 1_000 >= span.duration().as_micros());
    }
    if let Ok(time) = Wall::parse(text) {
        assert_eq!(Wall::parse(&time.to_string()), Ok(time));
    }
    if let Ok((name, value)) = values::pair(text) {
        assert_eq!(format!("{name}={value}"), text);
        let filter = EventFilter {
            events: vec![value],
            ..EventFilter::default()
        };
        let _ = filter.unknown_events();
    }
    if let Ok(module) = ModuleRef::parse(text) {
        assert_eq!(ModuleRef::parse(&module.to_string()), Ok(module));
    }
    if let Some(hash) = Hash::parse(text) {
        assert_eq!(Hash::parse(&hash.to_string()), Some(hash));
    }
    let _ = values::state(text);
    let _ = near::hint(text, ["task:done", "task:failed", "prams", text]);
    let _ = (TaskId::new(text), JobName::new(text), ModuleName::new(text));
});
