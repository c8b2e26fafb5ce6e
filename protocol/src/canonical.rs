//! A form of JSON that is equal for equal values: white space is dropped, keys are sorted, strings
//! are unescaped, and numbers are the text that was sent. Common forms of this kind read numbers as
//! doubles, so that 2^53+1 would equal 2^53.
//!
//! The form is made to be hashed, and is not JSON itself.

use crate::TaskId;
use crate::placeholder::{AskedFor, Located, PlaceholderKind, Placeholders};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// Arrays and objects inside each other. The reader goes from level to level by recursion, and
/// copies what it has once for each level.
pub const DEPTH_MAX: usize = 128;

/// Begins the place of a result. No JSON value begins with it.
const RESULT: u8 = 1;

/// Begins an array of results.
const RESULTS: u8 = 2;

/// Why a JSON text has no form that can be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotComparable {
    /// Readers disagree about which value of a repeated key counts.
    #[error("the key `{0}` stands twice in one object")]
    RepeatedKey(String),
    /// The text is nested deeper than [`DEPTH_MAX`].
    #[error("they are nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// Which results a whole job will have is not known before it has ended.
    #[error("they ask for the results of a whole job")]
    WholeJob,
    /// The text is no JSON value, or a string in it is no text.
    #[error("a part of them cannot be read")]
    Unreadable,
}

/// The form of `text`, which is one valid JSON value. Its placeholders are replaced: a literal by its
/// value, and a result by its place among the results that the text asks for, so that the form does
/// not depend on the ids of tasks. The places count as [`splice::references`](crate::splice::references)
/// does.
pub fn form(text: &str) -> Result<Vec<u8>, NotComparable> {
    let placeholders = Placeholders::find(text).map_err(|_| NotComparable::TooDeep)?;
    let mut form = Form {
        text,
        placeholders: placeholders.iter().collect(),
        at: 0,
        depth: 0,
        bytes: Vec::with_capacity(text.len()),
        places: BTreeMap::new(),
    };
    form.value()?;
    Ok(form.bytes)
}

/// A form that is being made.
struct Form<'a> {
    text: &'a str,
    /// The outermost placeholders, in the order of the text.
    placeholders: Vec<&'a Located>,
    /// Where the next byte of the text is read.
    at: usize,
    /// How many arrays and objects are open.
    depth: usize,
    bytes: Vec<u8>,
    /// The place of each result that the text has asked for so far.
    places: BTreeMap<TaskId, u64>,
}

/// A member of an object.
struct Member<'a> {
    key: Cow<'a, str>,
    /// The place of key and value in the form.
    form: Range<usize>,
}

impl<'a> Form<'a> {
    fn value(&mut self) -> Result<(), NotComparable> {
        self.skip_space();
        match self.peek() {
            Some(b'{') => match self.placeholder() {
                Some(placeholder) => self.replace(placeholder),
                None => self.nested(Form::object),
            },
            Some(b'[') => self.nested(Form::array),
            Some(b'"') => {
                let string = self.string()?;
                self.push_string(&string);
                Ok(())
            }
            Some(_) => self.scalar(),
            None => Err(NotComparable::Unreadable),
        }
    }

    fn nested(
        &mut self,
        read: fn(&mut Form<'a>) -> Result<(), NotComparable>,
    ) -> Result<(), NotComparable> {
        if self.depth >= DEPTH_MAX {
            return Err(NotComparable::TooDeep);
        }
        self.depth += 1;
        self.at += 1;
        read(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self) -> Result<(), NotComparable> {
        self.bytes.push(b'[');
        loop {
            self.skip_space();
            match self.peek() {
                Some(b']') => break,
                Some(b',') => self.at += 1,
                _ => self.value()?,
            }
        }
        self.at += 1;
        self.bytes.push(b']');
        Ok(())
    }

    fn object(&mut self) -> Result<(), NotComparable> {
        self.bytes.push(b'{');
        let begin = self.bytes.len();
        let mut members: Vec<Member<'a>> = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Some(b'}') => break,
                Some(b',') => self.at += 1,
                _ => members.push(self.member()?),
            }
        }
        self.at += 1;

        if !members.is_sorted_by(|a, b| a.key < b.key) {
            members.sort_by(|a, b| a.key.cmp(&b.key));
            if let Some(twice) = members.windows(2).find(|pair| pair[0].key == pair[1].key) {
                return Err(NotComparable::RepeatedKey(twice[0].key.to_string()));
            }
            let unsorted = self.bytes.split_off(begin);
            for Member { form, .. } in members {
                let member = unsorted.get(form.start - begin..form.end - begin);
                self.bytes.extend_from_slice(member.unwrap_or_default());
            }
        }
        self.bytes.push(b'}');
        Ok(())
    }

    fn member(&mut self) -> Result<Member<'a>, NotComparable> {
        let start = self.bytes.len();
        let key = self.string()?;
        self.push_string(&key);
        self.skip_space();
        // The colon.
        self.at += 1;
        self.value()?;
        Ok(Member {
            key,
            form: start..self.bytes.len(),
        })
    }

    /// The placeholder that begins here, if one does.
    fn placeholder(&self) -> Option<&'a Located> {
        let begins = |located: &&Located| located.object.start;
        let index = self.placeholders.binary_search_by_key(&self.at, begins);
        self.placeholders.get(index.ok()?).copied()
    }

    fn replace(&mut self, placeholder: &Located) -> Result<(), NotComparable> {
        if placeholder.kind == PlaceholderKind::Literal {
            self.at = placeholder.value.start;
            self.value()?;
        } else {
            let asked_for = placeholder.asked_for(self.text);
            let ids = match asked_for.map_err(|_| NotComparable::Unreadable)? {
                AskedFor::Tasks(ids) => ids,
                AskedFor::Job(_) => return Err(NotComparable::WholeJob),
            };
            if placeholder.kind == PlaceholderKind::Results {
                self.bytes.push(RESULTS);
                self.push_number(ids.len() as u64);
            }
            for id in ids {
                let next = self.places.len() as u64;
                let place = *self.places.entry(id).or_insert(next);
                self.bytes.push(RESULT);
                self.push_number(place);
            }
        }
        self.at = placeholder.object.end;
        Ok(())
    }

    fn push_number(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    /// Writes a string with its length before it, so that no string can look like two values.
    fn push_string(&mut self, string: &str) {
        self.bytes.push(b'"');
        self.push_number(string.len() as u64);
        self.bytes.extend_from_slice(string.as_bytes());
    }

    /// A number, `true`, `false` or `null`, as it stands in the text.
    fn scalar(&mut self) -> Result<(), NotComparable> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let is_end = |byte: u8| byte.is_ascii_whitespace() || b",]}".contains(&byte);
        let length = rest.bytes().position(is_end).unwrap_or(rest.len());
        if length == 0 {
            return Err(NotComparable::Unreadable);
        }
        self.bytes.extend_from_slice(&rest.as_bytes()[..length]);
        // What follows a number must not lengthen it.
        self.bytes.push(b' ');
        self.at += length;
        Ok(())
    }

    /// Reads a string.
    fn string(&mut self) -> Result<Cow<'a, str>, NotComparable> {
        let end = self.end_of_string()?;
        let quoted = self.text.get(self.at..end).unwrap_or_default();
        let plain = quoted.strip_prefix('"').and_then(|s| s.strip_suffix('"'));
        self.at = end;
        match plain {
            Some(plain) if !plain.contains('\\') => Ok(plain.into()),
            // Half of a surrogate pair is no text.
            _ => serde_json::from_str::<String>(quoted)
                .map(Cow::from)
                .map_err(|_| NotComparable::Unreadable),
        }
    }

    fn end_of_string(&self) -> Result<usize, NotComparable> {
        let bytes = self.text.as_bytes();
        let mut at = self.at + 1;
        loop {
            match bytes.get(at) {
                Some(b'"') => return Ok(at + 1),
                Some(b'\\') => at += 2,
                Some(_) => at += 1,
                None => return Err(NotComparable::Unreadable),
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_equal_forms() {
        for (one, other) in [
            (
                r#"{"a":1,"b":[2,"x"]}"#,
                "{ \"b\" : [ 2,\n\"x\" ],\t\"a\" :1}",
            ),
            (r#""\u0041\/""#, r#""A/""#),
            (
                r#"{"\u0061":1,"b":{"d":1,"c":2}}"#,
                r#"{"b":{"c":2,"d":1},"a":1}"#,
            ),
            (r#"{"$literal":{"b":1,"a":2}}"#, r#"{"a":2,"b":1}"#),
            (
                r#"[{"$result":"x"},{"$result":"y"}]"#,
                r#"[{"$result":"p"},{"$result":"q"}]"#,
            ),
            (
                r#"{"$results":["x","y","x"]}"#,
                r#"{"$results":["1","2","1"]}"#,
            ),
        ] {
            assert_eq!(form(one).unwrap(), form(other).unwrap(), "{one} {other}");
        }
    }

    #[test]
    fn other_values_have_other_forms() {
        let texts = [
            "1",
            "1.0",
            "10",
            "-0",
            "0",
            "9007199254740992",
            "9007199254740993",
            "\"1\"",
            "null",
            "\"null\"",
            "[]",
            "{}",
            "[1,2]",
            "[12]",
            "[[1],2]",
            "[1,[2]]",
            r#"["a","b"]"#,
            r#"["ab"]"#,
            r#"["a\",\"b"]"#,
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"$result":"a"}"#,
            r#"{"$results":["a"]}"#,
            r#"{"$literal":{"$result":"a"}}"#,
            r#"[{"$result":"a"},{"$result":"b"}]"#,
            r#"[{"$result":"a"},{"$result":"a"}]"#,
            r#"{"$result":"a","b":1}"#,
        ];
        let forms: Vec<_> = texts.iter().map(|text| form(text).unwrap()).collect();
        for (i, one) in forms.iter().enumerate() {
            for (j, other) in forms.iter().enumerate().skip(i + 1) {
                assert_ne!(one, other, "{} {}", texts[i], texts[j]);
            }
        }
    }

    #[test]
    fn what_readers_disagree_about_has_no_form() {
        let repeated = |text| Err(NotComparable::RepeatedKey(String::from(text)));
        assert_eq!(form(r#"{"a":1,"a":1}"#), repeated("a"));
        assert_eq!(form(r#"[{"b":1,"a":1,"\u0062":1}]"#), repeated("b"));
        assert_eq!(form(r#""\ud800""#), Err(NotComparable::Unreadable));
        let of_job = r#"{"$results":{"job":"j"}}"#;
        assert_eq!(form(of_job), Err(NotComparable::WholeJob));
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(form(&deep(DEPTH_MAX)).is_ok());
        assert_eq!(form(&deep(DEPTH_MAX + 1)), Err(NotComparable::TooDeep));
        assert_eq!(form(&deep(2_000_000)), Err(NotComparable::TooDeep));
    }
}
