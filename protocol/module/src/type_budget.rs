//! How much of a component's types is written out. Types refer to each other, so that a file of one
//! kilobyte can name a type which takes gigabytes when everything in it is spelled out, and one that
//! is nested deeper than a stack.

/// Levels of types inside each other. Those of real functions have fewer than ten.
const LEVELS_MAX: u32 = 32;

/// Bytes that the types of one function may take when they are written out.
const FUNCTION_BYTES_MAX: usize = 64 << 10;

/// Bytes that the types of all functions of a file may take.
const FILE_BYTES_MAX: usize = 1 << 20;

/// What one type costs beside its names, in bytes.
const TYPE_BYTES: usize = 16;

/// What may still be written out of a file's types.
#[derive(Debug)]
pub struct TypeBudget {
    file_bytes: usize,
    function_bytes: usize,
    levels: u32,
}

impl Default for TypeBudget {
    fn default() -> TypeBudget {
        TypeBudget {
            file_bytes: FILE_BYTES_MAX,
            function_bytes: FUNCTION_BYTES_MAX,
            levels: LEVELS_MAX,
        }
    }
}

impl TypeBudget {
    /// Begins with the next function of the file.
    pub fn next_function(&mut self) {
        self.function_bytes = FUNCTION_BYTES_MAX.min(self.file_bytes);
        self.levels = LEVELS_MAX;
    }

    /// Goes one level down for what `read` reads there. The error ends a sentence that begins with
    /// who holds such a type.
    pub fn inside<T>(
        &mut self,
        read: impl FnOnce(&mut TypeBudget) -> Result<T, &'static str>,
    ) -> Result<T, &'static str> {
        self.levels = self
            .levels
            .checked_sub(1)
            .ok_or("types that are nested more than 32 levels deep")?;
        self.spend(TYPE_BYTES)?;
        let read = read(self);
        self.levels += 1;
        read
    }

    /// Takes the bytes of a name.
    pub fn name(&mut self, name: &str) -> Result<String, &'static str> {
        self.spend(name.len())?;
        Ok(name.to_owned())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.function_bytes = self.function_bytes.saturating_sub(bytes);
        self.file_bytes = self.file_bytes.saturating_sub(bytes);
        if self.function_bytes == 0 || self.file_bytes == 0 {
            return Err("types of more than 64 KiB, or those of the whole file more than 1 MiB");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a broken promise ends it")]

    use super::*;

    fn down(budget: &mut TypeBudget, levels: u32) -> Result<(), &'static str> {
        match levels {
            0 => Ok(()),
            more => budget.inside(|budget| down(budget, more - 1)),
        }
    }

    #[test]
    fn levels_come_back_and_bytes_do_not() {
        let mut budget = TypeBudget::default();
        assert!(down(&mut budget, LEVELS_MAX).is_ok());
        assert!(down(&mut budget, LEVELS_MAX).is_ok());
        assert!(
            down(&mut budget, LEVELS_MAX + 1)
                .unwrap_err()
                .contains("32 levels")
        );

        budget.next_function();
        let long = "x".repeat(FUNCTION_BYTES_MAX / 2);
        assert_eq!(budget.name(&long).unwrap(), long);
        assert!(budget.name(&long).unwrap_err().contains("64 KiB"));
        for _ in 0..FILE_BYTES_MAX / FUNCTION_BYTES_MAX {
            budget.next_function();
            let _ = budget.name(&long);
            let _ = budget.name(&long);
        }
        budget.next_function();
        assert!(budget.name("x").is_err(), "the file has a bound of its own");
    }
}
