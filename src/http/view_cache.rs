//! The view cache: an endpoint's answer is kept as it goes on the wire, under its route, its path and its query.
//!
//! Opt-in, in the handler and in one place: which kind of data it is, whom it is for, and on what it depends.
//!
//! `ViewCache::for_all("things", Kind::Workspace).tag(tags::workspace(id)).answer(&app, &request, &caller, load)`; a whole
//! endpoint is in `docs/cache.md`.
//!
//! **Invariant.** Whether the caller may see it is decided before, each time: what is kept is shown to everybody who gets
//! that far, or, with [`ViewCache::for_caller`], to one. Only GET and HEAD are answered from it, and only what would be
//! a 200 is kept (and, for a shorter time, that there is nothing). Order and encoding of the query do not matter.

use actix_web::{HttpRequest, HttpResponse};
use diesel::QueryResult;
use futures_util::future::BoxFuture;
use url::form_urlencoded;
use uuid::Uuid;

use super::{caller::Caller, reply};
use crate::{
    app::App,
    cache::{ArgumentsHash, Key, Loaded, Question, Tag},
    db::Reader,
    error::AppError,
    queries::{Kind, view::View},
};

/// How an endpoint's answer is cached.
#[derive(Debug, Clone)]
pub struct ViewCache {
    name: &'static str,
    kind: Kind,
    per_caller: bool,
    parameters: &'static [&'static str],
    tags: Vec<Tag>,
    schema: u16,
}

impl ViewCache {
    /// The same answer for everybody who may see it. The name appears in keys.
    #[must_use]
    pub const fn for_all(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, per_caller: false, parameters: &[], tags: Vec::new(), schema: 1 }
    }

    /// An answer for each caller.
    #[must_use]
    pub const fn for_caller(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, per_caller: true, parameters: &[], tags: Vec::new(), schema: 1 }
    }

    /// The parameters of the query that make a difference. Others do not, lest a caller fills the cache with copies.
    #[must_use]
    pub fn parameters(self, parameters: &'static [&'static str]) -> Self {
        Self { parameters, ..self }
    }

    /// The answer ends when this is invalidated.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// The version of what is answered: raise it when that changes.
    #[must_use]
    pub fn schema(self, schema: u16) -> Self {
        Self { schema, ..self }
    }

    /// The kept answer, or one that is loaded now: 200, 304 if the client has it, 404 if there is nothing. The loader adds
    /// tags that come to light to the second argument.
    ///
    /// # Errors
    /// [`AppError::NotFound`], and what keeps it from being loaded.
    pub async fn answer<L>(
        self,
        app: &App,
        request: &HttpRequest,
        caller: &Caller,
        load: L,
    ) -> Result<HttpResponse, AppError>
    where
        L: for<'a> FnOnce(&'a mut Reader, &'a mut Vec<Tag>) -> BoxFuture<'a, QueryResult<Option<View>>>
            + Send
            + 'static,
    {
        if !request.method().is_safe() {
            return Err(AppError::internal("only GET and HEAD are answered from the view cache"));
        }
        let caller_id = self.per_caller.then(|| caller.actor.user_id.as_uuid());
        let key = Key::hashed("view", self.name, hash_of(request, self.parameters, caller_id), self.schema);
        let question = Question { key, token: caller.token.as_ref() };
        let tags = self.tags;
        let read = app.queries.read(app.queries.policy(self.kind), question, tags, |db| async move {
            let mut learned = Vec::new();
            let value = db.read(async |reader| load(reader, &mut learned).await).await?;
            Ok(Loaded { value, tags: learned })
        });
        reply::view(app, request, caller, &read.await?)
    }
}

/// Of route, path, query and caller.
fn hash_of(request: &HttpRequest, parameters: &[&str], caller: Option<Uuid>) -> ArgumentsHash {
    let route = request.match_pattern();
    // Decoded; each in its place.
    let path: Vec<_> = request.match_info().iter().map(|(name, value)| (name, canonical(value))).collect();
    ArgumentsHash::of(&(route, path, normalised(request.query_string(), parameters), caller))
}

/// One of the ways to write an id or a number: handlers take them all for the same.
fn canonical(value: &str) -> String {
    let id = Uuid::parse_str(value).map(|id| id.to_string()).ok();
    let number = || value.parse::<i64>().map(|number| number.to_string()).ok();
    id.or_else(number).unwrap_or_else(|| value.to_owned())
}

/// Parameters by name. Those of one name keep their order, which may mean something.
fn normalised(query: &str, parameters: &[&str]) -> Vec<(String, String)> {
    let sent = form_urlencoded::parse(query.as_bytes()).into_owned();
    let mut known: Vec<_> = sent.filter(|(name, _)| parameters.contains(&name.as_str())).collect();
    known.sort_by(|(one, _), (other, _)| one.cmp(other));
    known
}

#[cfg(test)]
mod tests {

    fn normalised(query: &str) -> Vec<(String, String)> {
        super::normalised(query, &["q", "limit", "a"])
    }

    #[test]
    fn ids_and_numbers_are_the_same_however_they_are_written() {
        for (value, wanted) in [
            ("007", "7"),
            ("+7", "7"),
            ("7", "7"),
            ("seven", "seven"),
            ("01A2042FDE0174D9AF062FF2B8194260", "01a2042f-de01-74d9-af06-2ff2b8194260"),
        ] {
            assert_eq!(super::canonical(value), wanted);
        }
    }

    #[test]
    fn order_and_encoding_of_a_query_do_not_matter_nor_does_what_nobody_asks_for() {
        let wanted = normalised("q=two+words&limit=5");
        for same in [
            "limit=5&q=two%20words",
            "&limit=5&&q=t%77o+words&",
            "limit=%35&q=two%20words",
            "x=1&limit=5&q=two+words&y",
        ] {
            assert_eq!(normalised(same), wanted, "{same}");
        }
        for other in
            ["q=two+words", "q=two+words&limit=6", "q=two+words&limit=5&limit=5", "q=Two+words&limit=5"]
        {
            assert_ne!(normalised(other), wanted, "{other}");
        }
        assert_ne!(normalised("a=1&a=2"), normalised("a=2&a=1"));
    }
}
