//! What is on disk: an entry of the journal whose checksum is right and whose content is not, an
//! entry as it is read, and the records of the view. What is read can be written, and is then read
//! as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use taskmaster_fuzz::body::TaskBody;
use taskmaster_fuzz::packed::StoredBody;
use taskmaster_fuzz::codec::{decode, encode, pack, unpack};
use taskmaster_fuzz::record::{Ended, JobRecord, JournalEntry, ModuleRecord};

fn kept<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(value) = unpack::<T>(bytes) {
        assert_eq!(unpack::<T>(&pack(&value)).as_ref(), Ok(&value));
    }
}

fuzz_target!(|data: &[u8]| {
    let _ = decode::<JournalEntry>(data);
    if let Ok(entry) = unpack::<JournalEntry>(data) {
        assert_eq!(decode::<JournalEntry>(&encode(&entry)), Ok(entry));
    }
    kept::<TaskBody>(data);
    kept::<Ended>(data);
    kept::<JobRecord>(data);
    kept::<ModuleRecord>(data);
    if let Ok(body) = unpack::<StoredBody>(data) {
        let _ = body.whole();
    }
});
