//! How deep a manifest nests, found out before it is read. The reader of TOML bounds each header,
//! each key and each value; a file that puts one into the other nests thousands of levels all the
//! same, and what is made of it is gone through by recursion.

/// Levels of tables and arrays inside each other. A schema for params has some twenty.
pub(super) const LEVELS_MAX: usize = 100;

/// Whether some value of the manifest may be inside more than [`LEVELS_MAX`] tables and arrays.
/// Every dot counts as a level, also that of a number.
pub(super) fn is_too_deep(text: &str) -> bool {
    let mut levels = Levels::default();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let token = match character {
            '"' | '\'' => string(rest, character),
            '#' => rest.find('\n').unwrap_or(rest.len()),
            other => {
                levels.see(other);
                other.len_utf8()
            }
        };
        if levels.all() > LEVELS_MAX {
            return true;
        }
        rest = rest.get(token..).unwrap_or_default();
    }
    false
}

/// The levels around one place of the text.
#[derive(Default)]
struct Levels {
    /// Those of the last header, as in `[a.b]`.
    header: usize,
    /// For each bracket that is open, the dots since it, or since the last comma in it.
    open: Vec<usize>,
    /// The dots of a line outside of brackets.
    dots: usize,
    /// Whether the line has begun with a bracket, and is a header.
    is_header: bool,
    /// Whether something stands in the line already.
    has_begun: bool,
    /// The dots in all of `open`.
    open_dots: usize,
}

impl Levels {
    fn all(&self) -> usize {
        self.header + self.dots + self.open.len() + self.open_dots
    }

    fn see(&mut self, character: char) {
        match character {
            '\n' if self.open.is_empty() => {
                if self.is_header {
                    self.header = self.dots + 1;
                }
                self.dots = 0;
                self.is_header = false;
                self.has_begun = false;
                return;
            }
            '[' if !self.has_begun => {
                self.is_header = true;
                self.header = 0;
            }
            '[' | '{' if !self.is_header => self.open.push(0),
            ']' | '}' if !self.is_header => {
                self.open_dots -= self.open.pop().unwrap_or_default();
            }
            ',' => self.open_dots -= self.open.last_mut().map_or(0, std::mem::take),
            '.' => match self.open.last_mut() {
                Some(dots) => {
                    *dots += 1;
                    self.open_dots += 1;
                }
                None => self.dots += 1,
            },
            _ => {}
        }
        self.has_begun |= !character.is_whitespace();
    }
}

/// The length of the string at the beginning of `text`, whose quotes are these. A string that does
/// not end has the rest of the text, which the reader refuses.
fn string(text: &str, quote: char) -> usize {
    let triple = if quote == '"' { "\"\"\"" } else { "'''" };
    let (begin, end) = match text.starts_with(triple) {
        true => (3, triple),
        false => (1, &triple[..1]),
    };
    let mut at = begin;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(end) {
            return at + end.len();
        }
        if begin == 1 && rest.starts_with('\n') {
            return at;
        }
        let mut characters = rest.chars();
        let first = characters.next().map_or(1, char::len_utf8);
        let is_escape = quote == '"' && rest.starts_with('\\');
        let second = characters.next().map_or(0, char::len_utf8);
        at += if is_escape { first + second } else { first };
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_not_deep() {
        for text in [
            "",
            "description = 'a [ { . ' # [[[",
            "[schema]\nproperties.a.items = { type = \"object\", properties.b = { minimum = 1.5 } }",
            "x = \"\"\"\n[[[[ \\\" ]]\"\"\"\ny = '''\n{{{{'''",
            &"a = [1.5, 2.5, {x.y = 1}]\n".repeat(1_000),
            &"[a.b.c]\nx = 1\n[[d.e]]\n".repeat(1_000),
            &format!("x = [{}]", "[1.0], ".repeat(10_000)),
        ] {
            assert!(!is_too_deep(text), "{}", &text[..text.len().min(80)]);
        }
    }

    #[test]
    fn levels_count_however_they_are_made() {
        let half = LEVELS_MAX / 2 + 1;
        let dots = vec!["a"; half].join(".");
        for text in [
            format!("x = {}", "[".repeat(2 * half)),
            format!("x = {}", "{a=".repeat(2 * half)),
            format!("x = {}", "{a.b=".repeat(half)),
            format!("[{dots}]\n{dots} = 1"),
            format!("[[{dots}]]\n\"#\".{dots} = 1"),
            format!("[a]\n{dots} = [\n{}", "[\n".repeat(half)),
            format!("{dots}.{dots} = 1"),
        ] {
            assert!(is_too_deep(&text), "{text}");
        }
    }
}
