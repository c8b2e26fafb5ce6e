//! Modules made for tests, byte by byte: those that text cannot say, or not in so few bytes.

/// A number as WebAssembly writes it.
pub fn leb(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A section with its id and its length.
pub fn section(id: u8, content: Vec<u8>) -> Vec<u8> {
    [vec![id], leb(content.len()), content].concat()
}

/// Bytes with their length before them.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&leb(bytes.len()), bytes].concat()
}

/// A module of these sections.
pub fn module(sections: &[Vec<u8>]) -> Vec<u8> {
    [b"\0asm\x01\0\0\0".to_vec(), sections.concat()].concat()
}

/// A component of these sections.
pub fn component(sections: &[Vec<u8>]) -> Vec<u8> {
    [b"\0asm\x0d\0\x01\0".to_vec(), sections.concat()].concat()
}

/// A command whose only function has so many locals of type `i32`, and this body without its end.
pub fn command(locals: usize, body: &[u8]) -> Vec<u8> {
    let declared = match locals {
        0 => vec![0],
        more => [vec![1], leb(more), vec![0x7f]].concat(),
    };
    let function = sized(&[declared, body.to_vec(), vec![0x0b]].concat());
    module(&[
        section(1, vec![1, 0x60, 0, 0]),
        section(3, vec![1, 0]),
        section(7, [vec![1, 6], b"_start".to_vec(), vec![0, 0]].concat()),
        section(10, [vec![1], function].concat()),
    ])
}

/// A body that changes each of so many locals inside so many loops: what a compiler keeps of it is
/// their product.
pub fn loops_over_locals(locals: usize, loops: usize) -> Vec<u8> {
    let mut body = [0x03, 0x40].repeat(loops);
    for local in 0..locals {
        body.push(0x20);
        body.extend(leb(local));
        body.extend([0x41, 1, 0x6a, 0x21]);
        body.extend(leb(local));
    }
    body.extend([0x41, 0, 0x0d, 0, 0x0b].repeat(loops));
    body
}

/// A component with one type: types of components inside each other, so many.
pub fn nested_types(levels: usize) -> Vec<u8> {
    let types = [
        vec![1],
        [0x41, 1, 1].repeat(levels.saturating_sub(1)),
        vec![0x41, 0],
    ];
    component(&[section(7, types.concat())])
}

/// Components inside each other, so many.
pub fn nested_components(levels: usize) -> Vec<u8> {
    let innermost = component(&[]);
    (1..levels).fold(innermost, |inner, _| component(&[section(4, inner)]))
}

/// The name of the only function of a module, as a section.
pub fn named(name: &str) -> Vec<u8> {
    let names = sized(&[vec![1, 0], sized(name.as_bytes())].concat());
    section(0, [sized(b"name"), vec![1], names].concat())
}
