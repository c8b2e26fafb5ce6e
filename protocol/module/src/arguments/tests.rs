use super::*;

fn signature(params: &[(&str, Type)]) -> Signature {
    Signature {
        params: params
            .iter()
            .map(|(name, ty)| ((*name).to_owned(), ty.clone()))
            .collect(),
        result: None,
    }
}

fn size() -> Type {
    Type::Record(vec![
        ("width".into(), Type::U8),
        ("unit-name".into(), Type::Option(Box::new(Type::String))),
    ])
}

fn one_of(ty: Type, params: &str) -> Result<Value, Refusal> {
    signature(&[("x", ty)])
        .arguments(Some(params), References::Replaced)
        .map(|mut values| values.remove(0))
}

#[test]
fn json_becomes_values_of_every_type() {
    let list = |ty: Type| Type::List(Box::new(ty));
    let option = |ty: Type| Type::Option(Box::new(ty));
    let shape = || {
        Type::Variant(vec![
            ("dot".into(), None),
            ("circle".into(), Some(Type::F64)),
        ])
    };
    let text = |text: &str| Value::String(text.into());
    for (ty, json, value) in [
        (Type::Bool, "true", Value::Bool(true)),
        (Type::S8, "-128", Value::Int(-128)),
        (
            Type::U64,
            "18446744073709551615",
            Value::Int(u64::MAX.into()),
        ),
        (Type::F64, "1e3", Value::Float(1000.0)),
        (Type::F32, "\"-Infinity\"", Value::Float(f64::NEG_INFINITY)),
        (Type::Char, "\"ü\"", Value::Char('ü')),
        (Type::String, "\"a\\n\"", text("a\n")),
        (
            list(Type::U8),
            "[1, 2]",
            Value::Many(vec![Value::Int(1), Value::Int(2)]),
        ),
        (
            Type::Tuple(vec![Type::Bool, Type::U8]),
            "[false,1]",
            Value::Many(vec![Value::Bool(false), Value::Int(1)]),
        ),
        (
            size(),
            "{\"width\":3}",
            Value::Many(vec![Value::Int(3), Value::Option(None)]),
        ),
        (shape(), "\"dot\"", Value::Case(0, None)),
        (
            shape(),
            "{\"circle\":2}",
            Value::Case(1, Some(Box::new(Value::Float(2.0)))),
        ),
        (
            Type::Enum(vec!["a".into(), "b".into()]),
            "\"b\"",
            Value::Case(1, None),
        ),
        (
            Type::Flags(vec!["r".into(), "w".into()]),
            "[\"w\"]",
            Value::Flags(vec![1]),
        ),
        (option(Type::U8), "null", Value::Option(None)),
        (
            option(option(Type::U8)),
            "{\"some\":null}",
            Value::Option(Some(Box::new(Value::Option(None)))),
        ),
        (
            Type::Result(Some(Box::new(Type::U8)), None),
            "{\"ok\":1}",
            Value::Case(0, Some(Box::new(Value::Int(1)))),
        ),
        (Type::Result(None, None), "\"err\"", Value::Case(1, None)),
    ] {
        assert_eq!(one_of(ty.clone(), json), Ok(value), "{ty}: {json}");
    }
}

#[test]
fn what_does_not_fit_is_told_with_its_path() {
    let sizes = || Type::List(Box::new(size()));
    for (ty, json, field, words) in [
        (
            Type::U8,
            "256",
            "params",
            "256, expected u8, a whole number from 0 to 255",
        ),
        (Type::U8, "1.0", "params", "1.0, expected u8"),
        (Type::String, "1", "params", "expected string"),
        (Type::Char, "\"ab\"", "params", "one character"),
        (
            sizes(),
            "[{\"width\":1},{\"width\":\"x\"}]",
            "params[1].width",
            "\"x\", expected u8",
        ),
        (
            sizes(),
            "[{\"widht\":1}]",
            "params[0].widht",
            "did you mean `width`",
        ),
        (sizes(), "[{}]", "params[0].width", "is missing; it is u8"),
        (size(), "[]", "params", "an object"),
        (
            Type::Tuple(vec![Type::Bool]),
            "[]",
            "params",
            "an array of 1 values",
        ),
        (
            Type::Enum(vec!["a".into()]),
            "\"b\"",
            "params",
            "one of \"a\"",
        ),
        (
            Type::Variant(vec![("a".into(), Some(Type::U8))]),
            "{\"a\":-1}",
            "params.a",
            "-1, expected u8",
        ),
        (
            Type::Variant(vec![("a".into(), Some(Type::U8))]),
            "\"a\"",
            "params",
            "{\"a\":…}",
        ),
        (
            Type::Flags(vec!["r".into()]),
            "[\"x\"]",
            "params",
            "an array of r",
        ),
    ] {
        let refusal = one_of(ty, json).unwrap_err();
        assert_eq!(refusal.field.as_deref(), Some(field), "{json}: {refusal}");
        assert!(refusal.message.contains(words), "{json}: {refusal}");
    }
    let long = one_of(Type::U8, &format!("\"{}\"", "ü".repeat(500))).unwrap_err();
    assert!(long.message.chars().count() < 200, "{long}");
}

#[test]
fn arguments_are_named_in_order_or_alone() {
    let two = signature(&[("a", Type::U8), ("b", Type::Option(Box::new(Type::String)))]);
    let read = |params| two.arguments(params, References::Replaced);
    assert_eq!(read(Some("{\"a\":1}")), read(Some("[1,null]")));
    assert_eq!(read(None).unwrap_err().field.as_deref(), Some("params.a"));
    assert_eq!(
        read(Some("7")).unwrap_err().field.as_deref(),
        Some("params")
    );
    let one = signature(&[("name", Type::String)]);
    for params in ["\"x\"", "{\"name\":\"x\"}"] {
        assert_eq!(
            one.arguments(Some(params), References::Replaced).unwrap(),
            [Value::String("x".into())]
        );
    }
    // An object is the record itself where that has such a field.
    let own = signature(&[("width", size())]);
    let width = Value::Many(vec![Value::Int(1), Value::Option(None)]);
    assert_eq!(
        own.arguments(Some("{\"width\":1}"), References::Replaced)
            .unwrap(),
        std::slice::from_ref(&width)
    );
    let other = signature(&[("size", size())]);
    assert_eq!(
        other
            .arguments(Some("{\"size\":{\"width\":1}}"), References::Replaced)
            .unwrap(),
        [width]
    );
    let none = signature(&[]);
    for params in [None, Some("null"), Some("{}"), Some("[]")] {
        assert_eq!(none.arguments(params, References::Replaced), Ok(vec![]));
    }
    assert!(
        none.arguments(Some("{\"a\":1}"), References::Replaced)
            .unwrap_err()
            .message
            .contains("there are none")
    );
}

#[test]
fn results_that_are_not_there_yet_fit_everywhere() {
    let two = signature(&[("a", Type::U8), ("b", Type::List(Box::new(Type::U8)))]);
    let read = |params| two.arguments(Some(params), References::Open);
    assert_eq!(
        read(r#"{"a":{"$result":"t"},"b":{"$results":["t"]}}"#).unwrap(),
        [Value::Later, Value::Later]
    );
    assert_eq!(
        read(r#"{"$result":"t"}"#).unwrap(),
        [Value::Later, Value::Later]
    );
    assert_eq!(
        read(r#"{"a":{"$literal":3},"b":[{"$result":"t"},4]}"#).unwrap()[0],
        Value::Int(3)
    );
    assert_eq!(
        read(r#"{"a":{"$results":[]},"b":[]}"#)
            .unwrap_err()
            .field
            .as_deref(),
        Some("params.a")
    );
    assert_eq!(
        read(r#"{"a":{"$result":"t"},"b":[-1]}"#)
            .unwrap_err()
            .field
            .as_deref(),
        Some("params.b[0]")
    );
}

#[test]
fn a_signature_is_written_as_wit_writes_it() {
    let all = Signature {
        params: vec![
            ("size".into(), size()),
            ("more".into(), Type::List(Box::new(Type::U8))),
        ],
        result: Some(Type::Result(None, Some(Box::new(Type::String)))),
    };
    let text = "func(size: record { width: u8, unit-name: option<string> }, more: list<u8>) -> result<_, string>";
    assert_eq!(all.to_string(), text);
}

#[test]
fn what_splicing_takes_for_data_is_data_for_the_types() {
    let two = signature(&[("a", Type::U8), ("b", Type::U8)]);
    let read = |params| two.arguments(Some(params), References::Open);
    for params in [
        r#"{"$result":"t","$result":"t"}"#,
        r#"{"a":1,"b":{"$result":"t","$result":"t"}}"#,
        r#"{"a":1,"b":{"$literal":{"$result":"t"}}}"#,
        r#"{"$literal":{"a":1,"b":{"$result":"t"}}}"#,
    ] {
        read(params).expect_err(params);
    }
    let literal = read(r#"{"$literal":{"a":1,"b":2}}"#).unwrap();
    assert_eq!(literal, [Value::Int(1), Value::Int(2)]);
}

#[test]
fn of_members_with_the_same_name_the_last_counts() {
    let two = signature(&[("a", Type::U8), ("b", Type::U8)]);
    let last = two.arguments(Some(r#"{"a":1,"b":2,"a":3}"#), References::Open);
    assert_eq!(last.unwrap(), [Value::Int(3), Value::Int(2)]);
    let one = signature(&[("a", Type::U8)]);
    let last = one.arguments(Some(r#"{"a":1,"a":3}"#), References::Open);
    assert_eq!(last.unwrap(), [Value::Int(3)]);
    let shape = Type::Variant(vec![("circle".into(), Some(Type::U8))]);
    assert_eq!(
        one_of(shape, r#"{"circle":1,"circle":2}"#).unwrap(),
        Value::Case(0, Some(Box::new(Value::Int(2))))
    );
}
