//! How deep a file nests. Readers and compilers go through nested types by recursion, and a few
//! kilobytes can nest ten thousand levels: so the levels are counted before anybody reads the types.

use wasmparser::{
    BinaryReader, ComponentAlias, ComponentExternName, ComponentImport, ComponentType,
    ComponentTypeRef, CoreType, Error, WasmFeatures,
};

/// Levels of components and modules inside each other, and of types inside each other. Tools make
/// fewer than ten; wasmparser's own bound for the types of values is the same.
pub(crate) const LEVELS_MAX: usize = 100;

/// The first bytes of the types of components and of instances, which alone hold other types.
const HOLDS_DECLARATIONS: [u8; 2] = [0x41, 0x42];

// The first byte of each declaration in such a type.
const CORE_TYPE: u8 = 0x00;
const TYPE: u8 = 0x01;
const ALIAS: u8 = 0x02;
const IMPORT: u8 = 0x03;
const EXPORT: u8 = 0x04;

/// Whether the types of a component's section are inside each other on more than [`LEVELS_MAX`]
/// levels. `section` is the content of the section. False as well where the section is broken
/// before such a level: the validator, which stops at the same place, says what is wrong there.
pub(crate) fn is_too_deep(section: &[u8], features: WasmFeatures) -> bool {
    let mut reader = BinaryReader::new_features(section, 0, features);
    let mut walk = Walk::default();
    match reader.read_var_u32() {
        Ok(types) => (0..types).any(|_| walk.one_type(&mut reader).is_err() || walk.is_too_deep),
        Err(_) => false,
    };
    walk.is_too_deep
}

/// A walk through types, which needs no stack of its own.
#[derive(Default)]
struct Walk {
    /// For each type that is open, the outermost first, how many of its declarations are to come.
    open: Vec<u32>,
    is_too_deep: bool,
}

impl Walk {
    /// Goes through one type with all that is in it, as far as it is not too deep.
    fn one_type(&mut self, reader: &mut BinaryReader<'_>) -> Result<(), Error> {
        self.begin(reader)?;
        while let Some(left) = self.open.last_mut() {
            if self.is_too_deep {
                return Ok(());
            }
            match left.checked_sub(1) {
                Some(fewer) => {
                    *left = fewer;
                    self.declaration(reader)?;
                }
                None => drop(self.open.pop()),
            }
        }
        Ok(())
    }

    /// Opens a type that holds declarations, or skips one that holds none.
    fn begin(&mut self, reader: &mut BinaryReader<'_>) -> Result<(), Error> {
        let mut ahead = reader.clone();
        if HOLDS_DECLARATIONS.contains(&ahead.read_u8()?) {
            self.open.push(ahead.read_var_u32()?);
            self.is_too_deep |= self.open.len() > LEVELS_MAX;
            *reader = ahead;
            return Ok(());
        }
        reader.read::<ComponentType<'_>>().map(drop)
    }

    fn declaration(&mut self, reader: &mut BinaryReader<'_>) -> Result<(), Error> {
        match reader.read_u8()? {
            CORE_TYPE => reader.read::<CoreType<'_>>().map(drop),
            TYPE => self.begin(reader),
            ALIAS => reader.read::<ComponentAlias<'_>>().map(drop),
            IMPORT => reader.read::<ComponentImport<'_>>().map(drop),
            EXPORT => {
                reader.read::<ComponentExternName<'_>>()?;
                reader.read::<ComponentTypeRef>().map(drop)
            }
            // What no validator knows ends the walk: so many bytes are not there.
            _ => reader.read_bytes(reader.bytes_remaining() + 1).map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::ENGINE;

    /// A section with one type: types of components inside each other, so many.
    fn nested(levels: usize) -> Vec<u8> {
        let mut section = vec![1];
        // The innermost has no declaration, each other one has one: a type.
        section.extend([0x41, 1, 1].repeat(levels - 1));
        section.extend([0x41, 0]);
        section
    }

    #[test]
    fn levels_are_counted_without_recursion() {
        assert!(!is_too_deep(&nested(LEVELS_MAX), ENGINE));
        assert!(is_too_deep(&nested(LEVELS_MAX + 1), ENGINE));
        assert!(is_too_deep(&nested(2_000_000), ENGINE));
    }

    #[test]
    fn a_type_beside_a_deep_one_does_not_hide_it() {
        // The first type is an instance with one declaration, a core module without anything.
        let mut section = vec![2, 0x42, 1, 0x00, 0x50, 0];
        section.extend(&nested(LEVELS_MAX + 1)[1..]);
        assert!(is_too_deep(&section, ENGINE));
    }

    #[test]
    fn what_is_broken_is_left_to_the_validator() {
        for broken in [&[][..], &[1], &[1, 0x41], &[1, 0x41, 1, 9], &[255, 255]] {
            assert!(!is_too_deep(broken, ENGINE), "{broken:?}");
        }
    }
}
