//! Messages of both directions. What is read can be written, and is then read as the same; the
//! client's reading without copies says the same as the whole one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use taskmaster_fuzz::{text, wire};
use taskmaster_protocol::{FromMaster, ToMaster};

fuzz_target!(|data: &[u8]| {
    let text = text(data);
    if let Ok(message) = ToMaster::decode(text) {
        let again = ToMaster::decode(&message.encode());
        assert_eq!(again.as_ref(), Ok(&message));
    }
    let whole = FromMaster::decode(text);
    if let Ok(message) = &whole {
        assert_eq!(FromMaster::decode(&message.encode()).as_ref(), Ok(message));
    }
    let hot = wire::read_hot(text);
    match (&hot, &whole) {
        (Some(wire::HotMessage::Final(hot)), Ok(FromMaster::Final(whole))) => {
            assert_eq!(hot.tasks.len(), whole.tasks.len())
        }
        (Some(wire::HotMessage::Watch(hot)), Ok(FromMaster::Events(whole))) => {
            assert_eq!(hot.len(), whole.len())
        }
        // It reads less closely: what is wrong inside a task it does not see.
        (Some(_), Ok(other)) => panic!("read as another message than {other:?}"),
        (None, Ok(FromMaster::Final(_) | FromMaster::Events(_))) => {
            panic!("not seen by the client: {text}")
        }
        _ => {}
    }
});
