use super::*;

fn signature(params: &[(&str, WitType)]) -> Signature {
    Signature {
        params: params
            .iter()
            .map(|(name, ty)| ((*name).to_owned(), ty.clone()))
            .collect(),
        result: None,
    }
}

fn size() -> WitType {
    WitType::Record(vec![
        ("width".into(), WitType::U8),
        (
            "unit-name".into(),
            WitType::Option(Box::new(WitType::String)),
        ),
    ])
}

fn one_of(ty: WitType, params: &str) -> Result<WitValue, Refusal> {
    signature(&[("x", ty)])
        .arguments(Some(params), ParamsStage::Replaced)
        .map(|mut values| values.remove(0))
}

#[test]
fn json_becomes_values_of_every_type() {
    let list = |ty: WitType| WitType::List(Box::new(ty));
    let option = |ty: WitType| WitType::Option(Box::new(ty));
    let shape = || {
        WitType::Variant(vec![
            ("dot".into(), None),
            ("circle".into(), Some(WitType::F64)),
        ])
    };
    let text = |text: &str| WitValue::String(text.into());
    for (ty, json, value) in [
        (WitType::Bool, "true", WitValue::Bool(true)),
        (WitType::S8, "-128", WitValue::Int(-128)),
        (
            WitType::U64,
            "18446744073709551615",
            WitValue::Int(u64::MAX.into()),
        ),
        (WitType::F64, "1e3", WitValue::Float(1000.0)),
        (
            WitType::F32,
            "\"-Infinity\"",
            WitValue::Float(f64::NEG_INFINITY),
        ),
        (WitType::Char, "\"ü\"", WitValue::Char('ü')),
        (WitType::String, "\"a\\n\"", text("a\n")),
        (
            list(WitType::U8),
            "[1, 2]",
            WitValue::Many(vec![WitValue::Int(1), WitValue::Int(2)]),
        ),
        (
            WitType::Tuple(vec![WitType::Bool, WitType::U8]),
            "[false,1]",
            WitValue::Many(vec![WitValue::Bool(false), WitValue::Int(1)]),
        ),
        (
            size(),
            "{\"width\":3}",
            WitValue::Many(vec![WitValue::Int(3), WitValue::Option(None)]),
        ),
        (shape(), "\"dot\"", WitValue::Case(0, None)),
        (
            shape(),
            "{\"circle\":2}",
            WitValue::Case(1, Some(Box::new(WitValue::Float(2.0)))),
        ),
        (
            WitType::Enum(vec!["a".into(), "b".into()]),
            "\"b\"",
            WitValue::Case(1, None),
        ),
        (
            WitType::Flags(vec!["r".into(), "w".into()]),
            "[\"w\"]",
            WitValue::Flags(vec![1]),
        ),
        (option(WitType::U8), "null", WitValue::Option(None)),
        (
            option(option(WitType::U8)),
            "{\"some\":null}",
            WitValue::Option(Some(Box::new(WitValue::Option(None)))),
        ),
        (
            WitType::Result(Some(Box::new(WitType::U8)), None),
            "{\"ok\":1}",
            WitValue::Case(0, Some(Box::new(WitValue::Int(1)))),
        ),
        (
            WitType::Result(None, None),
            "\"err\"",
            WitValue::Case(1, None),
        ),
    ] {
        assert_eq!(one_of(ty.clone(), json), Ok(value), "{ty}: {json}");
    }
}

#[test]
fn what_does_not_fit_is_told_with_its_path() {
    let sizes = || WitType::List(Box::new(size()));
    for (ty, json, field, words) in [
        (
            WitType::U8,
            "256",
            "params",
            "256, expected u8, a whole number from 0 to 255",
        ),
        (WitType::U8, "1.0", "params", "1.0, expected u8"),
        (WitType::String, "1", "params", "expected string"),
        (WitType::Char, "\"ab\"", "params", "one character"),
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
            WitType::Tuple(vec![WitType::Bool]),
            "[]",
            "params",
            "an array of 1 values",
        ),
        (
            WitType::Enum(vec!["a".into()]),
            "\"b\"",
            "params",
            "one of \"a\"",
        ),
        (
            WitType::Variant(vec![("a".into(), Some(WitType::U8))]),
            "{\"a\":-1}",
            "params.a",
            "-1, expected u8",
        ),
        (
            WitType::Variant(vec![("a".into(), Some(WitType::U8))]),
            "\"a\"",
            "params",
            "{\"a\":…}",
        ),
        (
            WitType::Flags(vec!["r".into()]),
            "[\"x\"]",
            "params",
            "an array of r",
        ),
    ] {
        let refusal = one_of(ty, json).unwrap_err();
        assert_eq!(refusal.field.as_deref(), Some(field), "{json}: {refusal}");
        assert!(refusal.message.contains(words), "{json}: {refusal}");
    }
    let long = one_of(WitType::U8, &format!("\"{}\"", "ü".repeat(500))).unwrap_err();
    assert!(long.message.chars().count() < 200, "{long}");
}

#[test]
fn arguments_are_named_in_order_or_alone() {
    let two = signature(&[
        ("a", WitType::U8),
        ("b", WitType::Option(Box::new(WitType::String))),
    ]);
    let read = |params| two.arguments(params, ParamsStage::Replaced);
    assert_eq!(read(Some("{\"a\":1}")), read(Some("[1,null]")));
    assert_eq!(read(None).unwrap_err().field.as_deref(), Some("params.a"));
    assert_eq!(
        read(Some("7")).unwrap_err().field.as_deref(),
        Some("params")
    );
    let one = signature(&[("name", WitType::String)]);
    for params in ["\"x\"", "{\"name\":\"x\"}"] {
        assert_eq!(
            one.arguments(Some(params), ParamsStage::Replaced).unwrap(),
            [WitValue::String("x".into())]
        );
    }
    // An object is the record itself where the record has such a field.
    let own = signature(&[("width", size())]);
    let width = WitValue::Many(vec![WitValue::Int(1), WitValue::Option(None)]);
    assert_eq!(
        own.arguments(Some("{\"width\":1}"), ParamsStage::Replaced)
            .unwrap(),
        std::slice::from_ref(&width)
    );
    let other = signature(&[("size", size())]);
    assert_eq!(
        other
            .arguments(Some("{\"size\":{\"width\":1}}"), ParamsStage::Replaced)
            .unwrap(),
        [width]
    );
    let none = signature(&[]);
    for params in [None, Some("null"), Some("{}"), Some("[]")] {
        assert_eq!(none.arguments(params, ParamsStage::Replaced), Ok(vec![]));
    }
    assert!(
        none.arguments(Some("{\"a\":1}"), ParamsStage::Replaced)
            .unwrap_err()
            .message
            .contains("there are none")
    );
}

#[test]
fn results_that_are_not_there_yet_fit_everywhere() {
    let two = signature(&[
        ("a", WitType::U8),
        ("b", WitType::List(Box::new(WitType::U8))),
    ]);
    let read = |params| two.arguments(Some(params), ParamsStage::Open);
    assert_eq!(
        read(r#"{"a":{"$result":"t"},"b":{"$results":["t"]}}"#).unwrap(),
        [WitValue::Later, WitValue::Later]
    );
    assert_eq!(
        read(r#"{"$result":"t"}"#).unwrap(),
        [WitValue::Later, WitValue::Later]
    );
    assert_eq!(
        read(r#"{"a":{"$literal":3},"b":[{"$result":"t"},4]}"#).unwrap()[0],
        WitValue::Int(3)
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
            ("more".into(), WitType::List(Box::new(WitType::U8))),
        ],
        result: Some(WitType::Result(None, Some(Box::new(WitType::String)))),
    };
    let text = "func(size: record { width: u8, unit-name: option<string> }, more: list<u8>) \
                -> result<_, string>";
    assert_eq!(all.to_string(), text);
}

#[test]
fn what_splicing_takes_for_data_is_data_for_the_types() {
    let two = signature(&[("a", WitType::U8), ("b", WitType::U8)]);
    let read = |params| two.arguments(Some(params), ParamsStage::Open);
    for params in [
        r#"{"$result":"t","$result":"t"}"#,
        r#"{"a":1,"b":{"$result":"t","$result":"t"}}"#,
        r#"{"a":1,"b":{"$literal":{"$result":"t"}}}"#,
        r#"{"$literal":{"a":1,"b":{"$result":"t"}}}"#,
    ] {
        read(params).expect_err(params);
    }
    let literal = read(r#"{"$literal":{"a":1,"b":2}}"#).unwrap();
    assert_eq!(literal, [WitValue::Int(1), WitValue::Int(2)]);
}

#[test]
fn of_members_with_the_same_name_the_last_counts() {
    let two = signature(&[("a", WitType::U8), ("b", WitType::U8)]);
    let last = two.arguments(Some(r#"{"a":1,"b":2,"a":3}"#), ParamsStage::Open);
    assert_eq!(last.unwrap(), [WitValue::Int(3), WitValue::Int(2)]);
    let one = signature(&[("a", WitType::U8)]);
    let last = one.arguments(Some(r#"{"a":1,"a":3}"#), ParamsStage::Open);
    assert_eq!(last.unwrap(), [WitValue::Int(3)]);
    let shape = WitType::Variant(vec![("circle".into(), Some(WitType::U8))]);
    assert_eq!(
        one_of(shape, r#"{"circle":1,"circle":2}"#).unwrap(),
        WitValue::Case(0, Some(Box::new(WitValue::Int(2))))
    );
}
