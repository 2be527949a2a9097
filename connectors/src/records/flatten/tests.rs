use bytes::Bytes;
use chrono::DateTime;
use exfilwatch_model::Product;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn event() -> Event {
    let at = DateTime::UNIX_EPOCH;
    Event::new(Product::M365, "id".into(), 0, at, Bytes::new())
}

fn flat_of(text: &[u8], asked: &FieldSet) -> Event {
    let mut event = event();
    let mut flattener = Flattener::new(asked);
    for (name, raw) in Members::of(text).unwrap().asked(|_| true) {
        flattener.member(&mut event, std::str::from_utf8(name).unwrap(), raw);
    }
    event
}

fn flat(value: &Value) -> Event {
    flat_of(value.to_string().as_bytes(), &FieldSet::all())
}

#[test]
fn pairs_objects_and_lists_become_names() {
    let event = flat(&json!({
        "A": {"B": {"C": 1}},
        "P": [{"Name": "x", "Value": "1"}, {"Name": "x", "Value": "2"}],
        "M": [{"Name": "Role", "NewValue": "n", "OldValue": ""}],
        "T": [{"ID": "a", "Type": 5}, {"ID": "b", "Type": 2}],
        "N": null,
    }));
    assert_eq!(event.get("A.B.C"), Some(&Field::Int(1)));
    assert_eq!(
        event.get("P.x"),
        Some(&Field::List(vec!["1".into(), "2".into()]))
    );
    assert_eq!(event.text("M.Role.NewValue").as_deref(), Some("n"));
    assert_eq!(
        event.get("T.ID"),
        Some(&Field::List(vec!["a".into(), "b".into()]))
    );
    assert!(event.get("N").is_none());
}

#[test]
fn an_enormous_record_is_cut_and_does_not_take_all_memory() {
    let many: Vec<Value> = (0..VALUES_MAX * 2).map(Value::from).collect();
    let event = flat(&json!({ "L": many, "Z": 1 }));
    let Some(Field::List(values)) = event.get("L") else {
        panic!("no list");
    };
    assert_eq!(values.len(), VALUES_MAX);
    assert!(event.get("Z").is_none());
}

#[test]
fn what_lies_too_deep_is_left_to_the_raw_form() {
    let nested = |depth: usize| {
        let text = format!("{{\"A\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
        flat_of(text.as_bytes(), &FieldSet::all())
            .get("A")
            .is_some()
    };
    assert!(nested(DEPTH_MAX) && !nested(DEPTH_MAX + 1));
}

#[test]
fn a_number_beyond_all_bounds_stays_as_it_stands_and_costs_only_itself() {
    let event = flat_of(br#"{"A":{"n":1e999,"t":"x"}}"#, &FieldSet::all());
    assert_eq!(event.text("A.n").as_deref(), Some("1e999"));
    assert_eq!(event.text("A.t").as_deref(), Some("x"));
}

/// What flattening means, told by the tree of the whole text.
fn add(event: &mut Event, asked: &FieldSet, name: &str, value: &Value, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::Array(values) => {
            for value in values {
                add(event, asked, name, value, depth + 1);
            }
        }
        Value::Object(map) => {
            let pair = map.get("Name").and_then(Value::as_str).filter(|_| {
                let values = ["Value", "NewValue", "OldValue"];
                values.iter().any(|value| map.contains_key(*value))
            });
            let prefix = pair.map_or(name.to_owned(), |pair| format!("{name}.{}", pair.trim()));
            for (member, value) in map {
                let name = match (pair, member.as_str()) {
                    (Some(_), "Name") => continue,
                    (Some(_), "Value") => prefix.clone(),
                    _ => format!("{prefix}.{member}"),
                };
                add(event, asked, &name, value, depth + 1);
            }
        }
        _ if !asked.has(name) => {}
        Value::Null => {}
        Value::Bool(truth) => event.add(name.to_owned(), *truth),
        Value::String(text) => event.add(name.to_owned(), text.as_str()),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => event.add(name.to_owned(), whole),
            None => event.add(name.to_owned(), number.to_string()),
        },
    }
}

/// Names in quotes, some spelled in two ways, some with a dot.
fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        r#""Name""#,
        r#""N\u0061me""#,
        r#""Value""#,
        r#""NewValue""#,
        r#""OldValue""#,
        r#""A""#,
        r#""\u0041""#,
        r#""A.B""#,
        r#""B""#,
        r#""a\"b""#,
        r#""\ud800""#,
        r#""""#,
    ])
}

/// Text of JSON as a vendor might write it at its worst, at least four values deep.
fn text() -> impl Strategy<Value = String> {
    let numbers = [
        "0",
        "-0",
        "7",
        "-12",
        "1.0",
        "1.50",
        "-0.0",
        "1e2",
        "1E-7",
        "0.1",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "18446744073709551616",
        "123456789e20",
    ];
    let texts = [
        r#""""#,
        r#"" A ""#,
        r#""B""#,
        r#""é\/""#,
        r#""\u00e9\n""#,
        r#""\ud83d\ude00""#,
        r#""a\udc00b""#,
        r#""\\ud800""#,
        r#""[1]""#,
        r#""{\"A\":1}""#,
    ];
    let words = ["true", "false", "null"];
    let leaf = prop_oneof![
        prop::sample::select(numbers.to_vec()).prop_map(str::to_owned),
        prop::sample::select(texts.to_vec()).prop_map(str::to_owned),
        prop::sample::select(words.to_vec()).prop_map(str::to_owned),
        any::<String>().prop_map(|text| Value::from(text).to_string()),
        any::<f64>()
            .prop_filter("JSON has no other", |number| number.is_finite())
            .prop_map(|number| Value::from(number).to_string()),
    ];
    leaf.prop_recursive(10, 60, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5)
                .prop_map(|elements| format!("[ {} ]", elements.join(" ,"))),
            object(inner),
        ]
    })
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let member = (name(), value).prop_map(|(name, value)| format!("{name}: {value}"));
    let members = prop::collection::vec(member, 0..6);
    members.prop_map(|members| format!("{{{}\n}}", members.join(",")))
}

/// Everything, or what a few paths lead to.
fn asked() -> impl Strategy<Value = FieldSet> {
    let part = prop::sample::select(vec!["A", "B", "Value", "NewValue", "Name", "*", ""]);
    let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("."));
    prop_oneof![
        Just(FieldSet::all()),
        prop::collection::vec(path, 0..6).prop_map(FieldSet::of),
    ]
}

proptest! {
    /// Fields, their order and values are those of the tree, of which what is not asked for is left out.
    #[test]
    fn the_flat_form_of_a_text_is_that_of_its_tree(text in object(text()), asked in asked()) {
        let Value::Object(tree) = json::value(text.as_bytes()) else {
            panic!("no object: {text}");
        };
        let mut expected = event();
        for (name, value) in &tree {
            add(&mut expected, &asked, name, value, 0);
        }
        let read: Vec<_> = Members::of(text.as_bytes()).unwrap().asked(|_| true)
            .into_iter()
            .map(|(name, raw)| (name.to_vec(), json::value(raw)))
            .collect();
        let told: Vec<_> = tree.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        prop_assert_eq!(read, told);
        let read = flat_of(text.as_bytes(), &asked);
        let (read, expected): (Vec<_>, Vec<_>) = (read.fields().collect(), expected.fields().collect());
        prop_assert_eq!(read, expected);
    }

    /// Scalars are those of the tree, also as text.
    #[test]
    fn a_scalar_is_told_as_that_of_the_tree(text in text()) {
        let expected = match json::value(text.as_bytes()) {
            Value::String(text) => Some(text),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let told = field(text.as_bytes()).map(|field| field.text().into_owned());
        prop_assert_eq!(&told, &expected);
        if expected.is_some() {
            prop_assert_eq!(super::text(text.as_bytes()).map(Cow::into_owned), expected);
        }
    }
}
