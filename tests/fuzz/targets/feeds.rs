//! A feed's input: parted into the same documents however it comes in, and each read as a line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use taskmaster_fuzz::line::{FeedLine, IdHasher};
use taskmaster_fuzz::splitter::{FeedDocument, Splitter};

const MAX: usize = 200;

fn split(parts: &[&[u8]]) -> Vec<FeedDocument> {
    let (mut splitter, mut out) = (Splitter::new(MAX), Vec::new());
    parts.iter().for_each(|part| splitter.push(part, &mut out));
    splitter.finish(&mut out);
    out
}

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else {
        return;
    };
    let whole = split(&[data]);
    let at = usize::from(*cut) % (data.len() + 1);
    assert_eq!(split(&[&data[..at], &data[at..]]), whole);
    assert_eq!(split(&data.chunks(1).collect::<Vec<_>>()), whole);
    for document in whole {
        let Ok(text) = document.text else { continue };
        assert!(text.len() <= MAX && text.trim() == text);
        let Ok(line) = FeedLine::read(document.line, text, &IdHasher::default(), || "made".into())
        else {
            continue;
        };
        assert!(
            serde_json::from_str::<serde_json::Value>(&line.text)
                .map_or(true, |value| value["id"].is_string())
        );
        if let Some(params) = line.params() {
            assert!(
                serde_json::from_str::<&serde_json::value::RawValue>(&line.text[params]).is_ok()
            );
        }
    }
});
