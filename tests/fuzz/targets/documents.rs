//! Task documents, and results inside params. A document that is taken can be written to disk and
//! read back; putting results into params is compared with the plain way, over the values that they
//! stand for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use taskmaster_fuzz::body::{AddedTask, TaskBody};
use taskmaster_fuzz::codec::{pack, unpack};
use taskmaster_fuzz::prepare::prepare;
use taskmaster_fuzz::text;
use taskmaster_protocol::{JobName, Json, TaskId, Wall, splice};

fuzz_target!(|data: &[u8]| {
    let Ok(json) = Json::parse(text(data)) else {
        return;
    };
    if let Ok(prepared) = prepare(&json) {
        let body = TaskBody::new(AddedTask {
            document: prepared.document,
            fingerprint: prepared.fingerprint,
            references: prepared.references.tasks,
            job_results: Vec::new(),
            id: prepared.id,
            job: JobName::new("j").expect("a name"),
            ordinal: 1,
            created: Wall(1),
            lineage: None,
            cache: None,
        });
        let read: TaskBody = unpack(&pack(&body)).expect("what was written is read");
        assert_eq!(read, body);
    }
    params(json.get());
});

const RESULT: &str = r#"{"$result":"not looked into"}"#;

fn params(text: &str) {
    let references = splice::references(text);
    let spliced = splice::splice(text, 1 << 20, |_| Ok(RESULT), |_| Ok(&[]));
    let _ = splice::blob(text);
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return;
    };
    // A value cannot have one key twice; a text can.
    if repeats_a_key(text) {
        return;
    }
    let mut found = Vec::new();
    match (plain(&value, &mut found), &spliced) {
        (Some(expected), Ok(spliced)) => {
            let spliced: Value = serde_json::from_str(spliced).expect("still JSON");
            assert_eq!(spliced, expected);
            // The model's objects are sorted by key.
            // More jobs than a document may name have no references, and could be spliced.
            let Ok(references) = references else { return };
            let mut tasks = references.tasks;
            (tasks.sort(), found.sort());
            assert_eq!(tasks, found);
        }
        (None, Err(_)) => {}
        (plain, spliced) => panic!("{plain:?}, and {spliced:?}"),
    }
}

fn is_job(value: Option<&Value>) -> bool {
    let members = value.and_then(Value::as_object);
    let name = members.filter(|members| members.len() == 1);
    let name = name.and_then(|members| members.get("job")?.as_str());
    name.is_some_and(|name| JobName::new(name).is_ok())
}

/// The same by recursion over values; `None`: a reference is wrong.
fn plain(value: &Value, found: &mut Vec<TaskId>) -> Option<Value> {
    let mut result = |id: &Value| -> Option<Value> {
        let id = TaskId::new(id.as_str()?).ok()?;
        if !found.contains(&id) {
            found.push(id);
        }
        serde_json::from_str(RESULT).ok()
    };
    match value {
        Value::Object(members) if members.len() == 1 && members.contains_key("$literal") => {
            Some(members["$literal"].clone())
        }
        Value::Object(members) if members.len() == 1 && members.contains_key("$result") => {
            result(&members["$result"])
        }
        // A whole job, which has no results here.
        Value::Object(members) if members.len() == 1 && is_job(members.get("$results")) => {
            Some(Value::Array(Vec::new()))
        }
        Value::Object(members) if members.len() == 1 && members.contains_key("$results") => members
            ["$results"]
            .as_array()?
            .iter()
            .map(result)
            .collect::<Option<Vec<Value>>>()
            .map(Value::Array),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| Some((key.clone(), plain(value, found)?)))
            .collect::<Option<serde_json::Map<String, Value>>>()
            .map(Value::Object),
        Value::Array(items) => items
            .iter()
            .map(|item| plain(item, found))
            .collect::<Option<Vec<Value>>>()
            .map(Value::Array),
        other => Some(other.clone()),
    }
}

/// Whether keys in the text are more than in the value that is made of it.
fn repeats_a_key(text: &str) -> bool {
    struct Count(usize);
    impl<'de> serde::Deserialize<'de> for Count {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
            deserializer.deserialize_any(Walk)
        }
    }
    struct Walk;
    impl<'de> serde::de::Visitor<'de> for Walk {
        type Value = Count;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("anything")
        }
        fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
            Ok(Count(0))
        }
        fn visit_i64<E>(self, _: i64) -> Result<Count, E> {
            Ok(Count(0))
        }
        fn visit_u64<E>(self, _: u64) -> Result<Count, E> {
            Ok(Count(0))
        }
        fn visit_f64<E>(self, _: f64) -> Result<Count, E> {
            Ok(Count(0))
        }
        fn visit_str<E>(self, _: &str) -> Result<Count, E> {
            Ok(Count(0))
        }
        fn visit_unit<E>(self) -> Result<Count, E> {
            Ok(Count(0))
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Count, A::Error> {
            let mut sum = 0;
            while let Some(Count(n)) = seq.next_element()? {
                sum += n;
            }
            Ok(Count(sum))
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
            let mut sum = 0;
            while let Some((_, Count(n))) = map.next_entry::<String, Count>()? {
                sum += n + 1;
            }
            Ok(Count(sum))
        }
    }
    fn keys(value: &Value) -> usize {
        match value {
            Value::Object(members) => members.len() + members.values().map(keys).sum::<usize>(),
            Value::Array(items) => items.iter().map(keys).sum(),
            _ => 0,
        }
    }
    let (Ok(Count(told)), Ok(value)) = (
        serde_json::from_str::<Count>(text),
        serde_json::from_str::<Value>(text),
    ) else {
        return true;
    };
    told != keys(&value)
}
