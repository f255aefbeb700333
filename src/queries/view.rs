//! A response as it is cached: the bytes that go on the wire, with their entity tag. A hit serialises nothing.

mod pieces;

use std::borrow::Cow;

use memchr::memchr;
use pieces::Pieces;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Ref, RefOr, Type,
        schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType},
    },
};

use crate::{cache::Stored, hex::hex};

/// A cached response: entity tag, cursor and body, in the form in which L2 keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// A line for the entity tag, a line for the cursor, and the body. Both lines are in the first piece. Where they end is
    /// looked for each time: to remember it would take room in each of many.
    pieces: Pieces,
}

/// A page of a list, as it is sent.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    /// What is on it.
    pub data: Vec<T>,
    /// Where the next one begins.
    pub next_cursor: Option<String>,
    /// There is a next one.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// A page of at most `limit` rows, of which one more was asked for. `sign` makes a cursor of the last.
    #[must_use]
    pub fn new(mut rows: Vec<T>, limit: u16, sign: impl FnOnce(&T) -> String) -> Self {
        let has_more = rows.len() > usize::from(limit);
        rows.truncate(limit.into());
        let next_cursor = rows.last().filter(|_| has_more).map(sign);
        Self { data: rows, next_cursor, has_more }
    }

    /// The same page, shown differently.
    #[must_use]
    pub fn map<U>(self, show: impl FnMut(T) -> U) -> Page<U> {
        let data = self.data.into_iter().map(show).collect();
        Page { data, next_cursor: self.next_cursor, has_more: self.has_more }
    }
}

impl View {
    /// An object of a certain version.
    #[must_use]
    pub fn object(version: i64, object: &impl Serialize) -> Self {
        let body = to_json(object);
        Self::new(&format!("\"{version}-{}\"", short_hash(&body)), None, &body)
    }

    /// A page of a list.
    #[must_use]
    pub fn page(page: Page<impl Serialize>) -> Self {
        let body = to_json(&page);
        Self::new(&format!("W/\"{}\"", short_hash(&body)), page.next_cursor.as_deref(), &body)
    }

    /// What was shown before, with its entity tag.
    #[must_use]
    pub fn new(etag: &str, next_cursor: Option<&str>, body: &[u8]) -> Self {
        let cursor = next_cursor.unwrap_or_default();
        let lines = etag.len() + cursor.len() + 2;
        Self { pieces: Pieces::joined([etag.as_bytes(), b"\n", cursor.as_bytes(), b"\n", body], lines) }
    }

    /// As many pieces as a body has at most.
    pub const PIECES: usize = 2;

    /// JSON, in the pieces in which it is kept. One of them may be empty.
    #[must_use]
    pub fn body_pieces(&self) -> [&[u8]; Self::PIECES] {
        let [_, _, first] = self.lines();
        [first, self.pieces.second()]
    }

    /// The entity tag, the cursor, and as much of the body as is in the same piece.
    fn lines(&self) -> [&[u8]; 3] {
        lines(self.pieces.first()).unwrap_or_default()
    }

    /// A copy of the JSON.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        self.body_pieces().concat()
    }

    /// The `ETag`, quotes included. That of an object is strong and begins with the row's version, which alone would not
    /// do: the object also shows rows of others. That of a list is weak.
    #[must_use]
    pub fn etag(&self) -> &[u8] {
        let [etag, ..] = self.lines();
        etag
    }

    /// The cursor of the next page.
    #[must_use]
    pub fn next_cursor(&self) -> Option<&str> {
        let [_, cursor, _] = self.lines();
        std::str::from_utf8(cursor).ok().filter(|cursor| !cursor.is_empty())
    }
}

/// By hand: each list has a page of its own name.
impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let data = ArrayBuilder::new().items(Ref::from_schema_name(T::name()));
        let cursor = SchemaType::from_iter([Type::String, Type::Null]);
        ObjectBuilder::new()
            .property("data", data)
            .property("next_cursor", ObjectBuilder::new().schema_type(cursor))
            .property("has_more", ObjectBuilder::new().schema_type(Type::Boolean))
            .required("data")
            .required("next_cursor")
            .required("has_more")
            .into()
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        T::schemas(schemas);
        schemas.push((T::name().into_owned(), T::schema()));
    }
}

/// Our own types: they have no maps with odd keys and no serialiser of their own that could fail.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Of most objects it need not grow.
    let mut json = Vec::with_capacity(1024);
    if serde_json::to_writer(&mut json, value).is_err() {
        json.clear();
    }
    json
}

fn short_hash(body: &[u8]) -> String {
    hex(Sha256::digest(body).get(..6).unwrap_or_default())
}

impl Stored for View {
    fn encode(&self) -> Option<Vec<u8>> {
        Some([self.pieces.first(), self.pieces.second()].concat())
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let [etag, cursor, _] = lines(payload)?;
        std::str::from_utf8(cursor).ok()?;
        Some(Self { pieces: Pieces::joined([payload], etag.len() + cursor.len() + 2) })
    }

    fn weight(&self) -> usize {
        size_of::<Self>() + self.pieces.len()
    }
}

/// Two lines, without what ends them, and what follows.
fn lines(bytes: &[u8]) -> Option<[&[u8]; 3]> {
    let (first, rest) = bytes.split_at_checked(memchr(b'\n', bytes)?)?;
    let rest = rest.get(1..)?;
    let (second, rest) = rest.split_at_checked(memchr(b'\n', rest)?)?;
    Some([first, second, rest.get(1..)?])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_view_survives_l2() {
        let page = Page { data: vec![json!({"a": 1})], next_cursor: Some("abc".to_owned()), has_more: true };
        for view in [View::object(41, &json!({"name": "two\nlines"})), View::page(page)] {
            assert_eq!(View::decode(&view.encode().unwrap()), Some(view));
        }
    }

    #[test]
    fn a_view_has_its_parts() {
        let page = |cursor: Option<&str>| {
            let page = Page { data: vec![1], next_cursor: cursor.map(ToOwned::to_owned), has_more: true };
            View::page(page)
        };
        assert_eq!(page(Some("abc")).next_cursor(), Some("abc"));
        assert_eq!(page(None).next_cursor(), None);
        assert_eq!(page(Some("abc")).body(), br#"{"data":[1],"next_cursor":"abc","has_more":true}"#);
        let old = View::new("\"7-b\"", None, b"{\n}");
        assert_eq!((old.etag(), &*old.body(), old.next_cursor()), (&b"\"7-b\""[..], &b"{\n}"[..], None));
    }

    #[test]
    fn the_entity_tag_changes_with_the_version_and_with_what_is_shown() {
        let etag = |version, name| View::object(version, &json!({ "author": name })).etag().to_vec();
        assert_ne!(etag(1, "a"), etag(2, "a"));
        assert_ne!(etag(1, "a"), etag(1, "b"));
        assert_eq!(etag(1, "a"), etag(1, "a"));
        assert!(etag(41, "a").starts_with(b"\"41-"));
    }
}
