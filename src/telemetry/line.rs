//! How a record becomes a line, for people or for machines.

use std::error::Error;
use std::fmt::{Display, Write};

use log::Record;
use log::kv::{self, Key, Value, VisitSource, VisitValue};

use super::Chain;

/// The field that carries the request id.
const REQUEST_ID: &str = "request_id";

/// Fields of a JSON line that are not the caller's to set.
const RESERVED: &[&str] = &["ts", "level", "target", "message"];

/// `2026-01-31T12:00:00.000Z INFO  lockstep::server request_id=… message key=value`.
pub(super) fn text(time: &dyn Display, record: &Record<'_>, request_id: Option<&str>) -> String {
    let mut line = String::with_capacity(USUAL);
    // Writing to a string cannot fail.
    let _ = write!(line, "{time} {:<5} ", record.level());
    push_visible(&mut line, record.target());
    if let Some(id) = request_id {
        line.push_str(" request_id=");
        push_word(&mut line, id);
    }
    line.push(' ');
    match record.args().as_str() {
        Some(message) => push_visible(&mut line, message),
        None => push_visible(&mut line, &record.args().to_string()),
    }
    for_each_pair(record, request_id, |key, value| {
        line.push(' ');
        push_word(&mut line, key);
        line.push('=');
        push_word(&mut line, &value.text);
    });
    line.push('\n');
    line
}

/// `{"ts":"…","level":"INFO","target":"…","request_id":"…","message":"…","key":"value"}`.
pub(super) fn json(time: &dyn Display, record: &Record<'_>, request_id: Option<&str>) -> String {
    let mut line = String::with_capacity(USUAL);
    line.push('{');
    let mut push = |key: &str, value: &Rendered| {
        if line.len() > 1 {
            line.push(',');
        }
        push_json(&mut line, key);
        line.push(':');
        if value.literal {
            line.push_str(&value.text);
        } else {
            push_json(&mut line, &value.text);
        }
    };
    push("ts", &Rendered::string(time));
    push("level", &Rendered::string(record.level()));
    push("target", &Rendered::string(record.target()));
    if let Some(id) = request_id {
        push(REQUEST_ID, &Rendered::string(id));
    }
    push("message", &Rendered::string(record.args()));
    for_each_pair(record, request_id, |key, value| {
        if RESERVED.contains(&key) {
            push(&format!("kv.{key}"), value);
        } else {
            push(key, value);
        }
    });
    line.push_str("}\n");
    line
}

/// Enough for most lines.
const USUAL: usize = 384;
/// And for most values.
const USUAL_VALUE: usize = 96;

/// A value as text.
struct Rendered {
    text: String,
    /// Whether the text is a JSON value as it stands: a number, `true`, `false` or `null`.
    literal: bool,
}

impl Rendered {
    fn string(value: impl Display) -> Self {
        Self { text: value.to_string(), literal: false }
    }

    /// Becomes this value.
    fn set(&mut self, value: impl Display, literal: bool) {
        self.text.clear();
        let _ = write!(self.text, "{value}");
        self.literal = literal;
    }
}

/// Hands out the key-value pairs of a record. One that repeats the request id is left out.
fn for_each_pair(record: &Record<'_>, request_id: Option<&str>, each: impl FnMut(&str, &Rendered)) {
    struct Pairs<F> {
        has_id: bool,
        /// One for all, so that it is allocated once.
        value: Rendered,
        each: F,
    }

    impl<'kvs, F: FnMut(&str, &Rendered)> VisitSource<'kvs> for Pairs<F> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
            if self.has_id && key.as_str() == REQUEST_ID {
                return Ok(());
            }
            self.value.set("null", true);
            value.visit(&mut Render(&mut self.value))?;
            (self.each)(key.as_str(), &self.value);
            Ok(())
        }
    }

    let value = Rendered { text: String::with_capacity(USUAL_VALUE), literal: false };
    let mut pairs = Pairs { has_id: request_id.is_some(), value, each };
    // A value that fails to show itself ends the list; the line is still worth writing.
    let _ = record.key_values().visit(&mut pairs);
}

struct Render<'a>(&'a mut Rendered);

impl<'v> VisitValue<'v> for Render<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.0.set(value, false);
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.0.set("null", true);
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0.set(value, true);
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0.set(value, true);
        Ok(())
    }

    fn visit_u128(&mut self, value: u128) -> Result<(), kv::Error> {
        self.0.set(value, true);
        Ok(())
    }

    fn visit_i128(&mut self, value: i128) -> Result<(), kv::Error> {
        self.0.set(value, true);
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        // JSON has no word for infinity.
        self.0.set(value, value.is_finite());
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.0.set(value, true);
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
        self.0.set(value, false);
        Ok(())
    }

    fn visit_error(&mut self, err: &(dyn Error + 'static)) -> Result<(), kv::Error> {
        self.0.set(Chain(err), false);
        Ok(())
    }

    fn visit_borrowed_error(&mut self, err: &'v (dyn Error + 'static)) -> Result<(), kv::Error> {
        self.visit_error(err)
    }
}

/// Whether a character must not reach a line as it is: control characters, which include the
/// escape of terminals, and the line separators of Unicode.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Nearly all text is plain, and copied whole.
fn is_printable(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte)
}

fn push_visible(line: &mut String, text: &str) {
    if text.bytes().all(is_printable) {
        return line.push_str(text);
    }
    for c in text.chars() {
        if is_hidden(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

/// A key or value of a text line: in quotes unless it is one plain word.
fn push_word(line: &mut String, text: &str) {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
    if !text.is_empty() && text.bytes().all(is_plain) {
        return line.push_str(text);
    }
    let plain = |c: char| !c.is_whitespace() && !is_hidden(c) && !matches!(c, '"' | '=' | '\\');
    if !text.is_empty() && text.chars().all(plain) {
        line.push_str(text);
        return;
    }
    line.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            c if is_hidden(c) => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line.push('"');
}

fn push_json(line: &mut String, text: &str) {
    line.push('"');
    if text.bytes().all(|byte| is_printable(byte) && !matches!(byte, b'"' | b'\\')) {
        line.push_str(text);
        line.push('"');
        return;
    }
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            // All of them are below U+10000, so four digits are enough. Writing to a string
            // cannot fail.
            c if is_hidden(c) => drop(write!(line, "\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line.push('"');
}
