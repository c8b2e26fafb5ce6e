//! The published description of the wire, AsyncAPI 3.0, which is made from the types of
//! [`crate::message`].

use crate::message::{FromMaster, ToMaster};
use crate::{PROTOCOL_VERSION, TaskDocument};
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

const DESCRIPTION: &str = concat!(
    "One WebSocket at `/`, one JSON object per message: {\"event\": name, \"data\": …}. ",
    "`hello` comes first. ",
    "Blobs go over HTTP on the same port: GET and PUT /blobs/<sha256>.",
);

/// The whole document. Equal types give equal text, so that a test can compare it with the
/// published copy.
pub fn asyncapi() -> Value {
    let settings =
        SchemaSettings::draft07().with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let document = generator.subschema_for::<TaskDocument>();
    let to = ToMaster::schemas(&mut generator);
    let from = FromMaster::schemas(&mut generator);
    let mut messages = messages("to", to);
    messages.extend(self::messages("from", from));
    messages.insert(
        "TaskDocument".into(),
        json!({
            "summary": "One element of `tasks` in task:add, and one line of a feed.",
            "payload": document,
        }),
    );
    let mut published = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Taskmaster's wire",
            "version": PROTOCOL_VERSION.to_string(),
            "description": DESCRIPTION,
        },
        "channels": { "taskmaster": { "address": "/", "messages": references(&messages) } },
        "operations": {
            "receive": operation("receive", "to", &messages),
            "send": operation("send", "from", &messages),
        },
        "components": { "messages": messages, "schemas": definitions(&mut generator) },
    });
    unwrap_descriptions(&mut published);
    published
}

/// Joins the lines of each paragraph of a description: where a comment in the source is wrapped is
/// no matter of the wire. The depth is that of the types, which is small.
fn unwrap_descriptions(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "description" => {
                        let paragraphs = text.split("\n\n").map(|lines| lines.replace('\n', " "));
                        *text = paragraphs.collect::<Vec<_>>().join("\n\n");
                    }
                    _ => unwrap_descriptions(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(unwrap_descriptions),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn messages(direction: &str, schemas: Vec<(&'static str, Schema)>) -> Map<String, Value> {
    let entry = |(event, data): (&'static str, Schema)| {
        let payload = json!({
            "type": "object",
            "properties": { "event": { "const": event }, "data": data },
            "required": ["event", "data"],
        });
        (
            format!("{direction}.{}", event.replace(':', ".")),
            json!({ "name": event, "payload": payload }),
        )
    };
    schemas.into_iter().map(entry).collect()
}

fn references(messages: &Map<String, Value>) -> Value {
    let entry = |name: &String| {
        (
            name.clone(),
            json!({ "$ref": format!("#/components/messages/{name}") }),
        )
    };
    Value::Object(messages.keys().map(entry).collect())
}

fn operation(action: &str, direction: &str, messages: &Map<String, Value>) -> Value {
    let of = |name: &&String| name.starts_with(direction);
    let list: Vec<Value> = messages
        .keys()
        .filter(of)
        .map(|name| json!({ "$ref": format!("#/channels/taskmaster/messages/{name}") }))
        .collect();
    json!({ "action": action, "channel": { "$ref": "#/channels/taskmaster" }, "messages": list })
}

fn definitions(generator: &mut SchemaGenerator) -> Value {
    Value::Object(generator.take_definitions(true).into_iter().collect())
}

#[cfg(test)]
mod tests {
    /// `UPDATE_EXPECT=1 cargo test -p taskmaster-protocol` renews the published copy.
    #[test]
    fn the_published_schema_is_what_the_types_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/asyncapi.json");
        let made = format!("{:#}\n", super::asyncapi());
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap_or_default() == made,
            "protocol/asyncapi.json is stale: run with UPDATE_EXPECT=1"
        );
    }
}
