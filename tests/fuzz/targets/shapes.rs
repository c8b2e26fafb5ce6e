//! Deep and wide module files, made from a few bytes: a pattern many times, inside each other or one
//! after the other. Whatever they are, they are judged within the limits of memory and time that
//! `run` gives to the process, without a panic, and with a bounded answer.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// Bytes of a file that is made.
const FILE_BYTES_MAX: usize = 4 << 20;

/// Bytes of an answer: a thousand imports and exports of 4 KiB each, and a few sentences.
const ANSWER_BYTES_MAX: usize = 9 << 20;

fuzz_target!(|data: &[u8]| {
    let file = Shape(data).file();
    let found = taskmaster_module::inspect_content("m", &file);
    assert_eq!(found.check.ok, found.check.error.is_none());
    let answer = serde_json::to_string(&found).unwrap();
    assert!(answer.len() < ANSWER_BYTES_MAX, "{} bytes", answer.len());
    // What crosses to the process that has asked comes back as it was.
    assert_eq!(
        serde_json::from_str::<taskmaster_module::Inspection>(&answer).unwrap(),
        found
    );
});

/// The bytes that say how a file is made.
struct Shape<'a>(&'a [u8]);

impl Shape<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// How often a pattern of so many bytes is there: up to as often as the file has room for it.
    fn count(&mut self, bytes: usize) -> usize {
        let room = FILE_BYTES_MAX / bytes.max(1);
        room * usize::from(self.byte()) / 255
    }

    fn file(mut self) -> Vec<u8> {
        match self.byte() % 5 {
            0 => {
                let count = self.count(self.0.len());
                let types = [vec![1], self.0.repeat(count), vec![0x41, 0]].concat();
                component(section(7, types))
            }
            1 => {
                let levels = self.count(64).min(2_000);
                let sections = self.0.to_vec();
                // The innermost first: each outer one has the length of what is in it.
                (0..levels).fold(component(sections), |inner, _| component(section(4, inner)))
            }
            2 => {
                let count = self.count(self.0.len());
                command(self.0.repeat(count))
            }
            3 => {
                let id = self.byte();
                let layer = self.byte();
                let count = self.count(self.0.len());
                let content = [leb(count), self.0.repeat(count)].concat();
                let section = section(id, content);
                if layer & 1 == 0 {
                    module(section)
                } else {
                    component(section)
                }
            }
            _ => {
                let count = self.count(self.0.len());
                [b"(module ".as_slice(), &self.0.repeat(count)].concat()
            }
        }
    }
}

fn leb(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn section(id: u8, content: Vec<u8>) -> Vec<u8> {
    [vec![id], leb(content.len()), content].concat()
}

fn module(sections: Vec<u8>) -> Vec<u8> {
    [b"\0asm\x01\0\0\0".to_vec(), sections].concat()
}

fn component(sections: Vec<u8>) -> Vec<u8> {
    [b"\0asm\x0d\0\x01\0".to_vec(), sections].concat()
}

/// A command with this body.
fn command(body: Vec<u8>) -> Vec<u8> {
    let function = [vec![0], body, vec![0x0b]].concat();
    let sections = [
        section(1, vec![1, 0x60, 0, 0]),
        section(3, vec![1, 0]),
        section(7, [vec![1, 6], b"_start".to_vec(), vec![0, 0]].concat()),
        section(10, [vec![1], leb(function.len()), function].concat()),
    ];
    module(sections.concat())
}
