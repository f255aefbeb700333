//! Values as the document describes them, and values as it does not.

use rand::{
    Rng as _,
    rngs::StdRng,
    seq::{IndexedRandom as _, IteratorRandom as _},
};
use serde_json::{Map, Value, json};

use crate::support::openapi::Document;

/// What a schema describes. `known` may know something better for a member than its schema does.
pub fn of_schema(
    rng: &mut StdRng,
    document: &Document,
    schema: &Value,
    known: &mut impl FnMut(&mut StdRng, &str) -> Option<Value>,
) -> Value {
    let schema = document.resolve(schema);
    if let Some(values) = schema["enum"].as_array() {
        return values.choose(rng).unwrap().clone();
    }
    for alternatives in ["oneOf", "anyOf"] {
        if let Some(schemas) = schema[alternatives].as_array() {
            let schema = schemas.choose(rng).unwrap();
            return of_schema(rng, document, schema, known);
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.choose(rng).unwrap(),
        kind => kind,
    };
    match kind.as_str().unwrap() {
        "null" => Value::Null,
        "boolean" => rng.random::<bool>().into(),
        "integer" => {
            let bound = |name: &str, unless: i64| schema[name].as_i64().unwrap_or(unless);
            rng.random_range(bound("minimum", -1000)..=bound("maximum", 1000)).into()
        }
        "number" => rng.random_range(-1e6..1e6).into(),
        "string" => match schema["format"].as_str() {
            Some("uuid") => uuid(rng).into(),
            Some("date-time") => time(rng).into(),
            _ => text(rng).into(),
        },
        "array" => {
            let count = rng.random_range(0..4);
            (0..count).map(|_| of_schema(rng, document, &schema["items"], known)).collect()
        }
        "object" => {
            let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
            let mut members = Map::new();
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                if required.iter().any(|one| *one == name) || rng.random_bool(0.6) {
                    let better = if rng.random_bool(0.85) { known(rng, name) } else { None };
                    let value = better.unwrap_or_else(|| of_schema(rng, document, schema, known));
                    members.insert(name.clone(), value);
                }
            }
            members.into()
        }
        other => panic!("what is a {other}?"),
    }
}

pub fn uuid(rng: &mut StdRng) -> String {
    uuid::Builder::from_random_bytes(rng.random()).into_uuid().to_string()
}

pub fn time(rng: &mut StdRng) -> String {
    let seconds = rng.random_range(0..4_000_000_000_i64);
    chrono::DateTime::from_timestamp(seconds, rng.random_range(0..1_000_000_000)).unwrap().to_rfc3339()
}

/// Something that somebody could have written.
pub fn text(rng: &mut StdRng) -> String {
    const WORDS: [&str; 14] = [
        "words",
        "plan",
        "Zürich",
        "naïve",
        "日本語",
        "🦀",
        "@owner",
        "@member",
        "or",
        "-not",
        "\"two words\"",
        "it's",
        "<b>",
        "a",
    ];
    let count = rng.random_range(1..6);
    (0..count).map(|_| *WORDS.choose(rng).unwrap()).collect::<Vec<_>>().join(" ")
}

/// Something that nobody should have to write.
pub fn wild(rng: &mut StdRng) -> String {
    const ODD: [&str; 34] = [
        "",
        " ",
        "\0",
        "a\0b",
        "\u{1}\u{2}\u{3}",
        "\u{7f}",
        "\n",
        "\r\n",
        "\t",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "\u{202e}evil",
        "\u{fffd}",
        "\u{ffff}",
        "\u{10ffff}",
        "e\u{301}",
        "İ",
        "ﬀ",
        "ß",
        "👩‍👩‍👧‍👦",
        "'; DROP TABLE users; --",
        "{{7*7}}",
        "%s%n%00",
        "../../etc/passwd",
        "<script>alert(1)</script>",
        "\\",
        "\"",
        "!&|:*()<->",
        "-",
        "null",
        "NaN",
        "-1",
        "1e999",
    ];
    match rng.random_range(0..10) {
        0..4 => (*ODD.choose(rng).unwrap()).to_owned(),
        4..6 => {
            let count = rng.random_range(1..5);
            (0..count).map(|_| *ODD.choose(rng).unwrap()).collect()
        }
        6 => {
            let count = rng.random_range(1..40);
            (0..count).map(|_| rng.random_range('\0'..' ')).collect()
        }
        7 => "x".repeat(*[64, 81, 101, 141, 201, 251, 256, 2001, 10_001].choose(rng).unwrap()),
        _ => {
            let count = rng.random_range(1..60);
            (0..count).map(|_| rng.random::<char>()).collect()
        }
    }
}

/// Something of any type.
pub fn any(rng: &mut StdRng) -> Value {
    match rng.random_range(0..12) {
        0 => Value::Null,
        1 => rng.random::<bool>().into(),
        2 => [json!(0), json!(-1), json!(i64::MIN), json!(u64::MAX), json!(1.5), json!(1e308)]
            .into_iter()
            .choose(rng)
            .unwrap(),
        3 => json!([]),
        4 => json!({}),
        5 => json!([wild(rng), null_or_number(rng)]),
        6 => json!({ wild(rng): wild(rng) }),
        7 => uuid(rng).into(),
        // Beyond every limit on texts, and rarely beyond that on bodies.
        8 => "ü".repeat(if rng.random_bool(0.2) { 150_000 } else { 100_001 }).into(),
        _ => wild(rng).into(),
    }
}

fn null_or_number(rng: &mut StdRng) -> Value {
    if rng.random() { Value::Null } else { rng.random::<i32>().into() }
}

/// A text as a part of a URL, whatever it contains.
pub fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}
