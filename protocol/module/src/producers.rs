//! The languages and tools that made a file, as far as the file says so: its producers sections,
//! including those of inner modules.

use wasmparser::ProducersSectionReader;

/// Entries that are kept. A composed component may have very many, and a file may claim anything.
const ENTRIES_MAX: usize = 32;

/// Characters of one entry that are kept.
const ENTRY_MAX: usize = 80;

/// Languages and tools, each once, in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    languages: Vec<String>,
    tools: Vec<String>,
}

impl Producers {
    /// Adds a section. A broken one is no reason to refuse the file, because it is a custom
    /// section.
    pub(crate) fn read(&mut self, section: ProducersSectionReader<'_>) {
        for field in section.into_iter().flatten() {
            let into = if field.name == "language" {
                &mut self.languages
            } else {
                &mut self.tools
            };
            for value in field.values.into_iter().flatten() {
                let entry = format!("{} {}", value.name, value.version);
                let entry: String = entry
                    .trim()
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(ENTRY_MAX)
                    .collect();
                if !entry.is_empty() && !into.contains(&entry) && into.len() < ENTRIES_MAX {
                    into.push(entry);
                }
            }
        }
    }

    /// The languages, if the file names any.
    pub(crate) fn language(&self) -> Option<String> {
        (!self.languages.is_empty()).then(|| self.languages.join(", "))
    }

    /// Compilers and other tools, if the file names any.
    pub(crate) fn toolchain(&self) -> Option<String> {
        (!self.tools.is_empty()).then(|| self.tools.join(", "))
    }
}
