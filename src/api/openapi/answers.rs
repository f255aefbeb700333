//! What comes out of a request.

use utoipa::{
    ToSchema,
    openapi::{
        ContentBuilder, HeaderBuilder, ObjectBuilder, RefOr, Response, ResponseBuilder, Type, header::Header,
        schema::Schema,
    },
};

use super::inputs::Sketch;
use crate::queries::view::Page;

/// The schema of a body, once the document explains what it refers to.
type Describe = fn(&mut Sketch) -> RefOr<Schema>;

/// What an operation does, and what it answers when nothing is wrong.
pub(in crate::api) struct Answer {
    pub(super) summary: &'static str,
    status: u16,
    content: Option<(&'static str, Describe)>,
    headers: &'static [HeaderOf],
    /// Also answered with this status when there was nothing to do.
    unless: Option<(u16, &'static str)>,
    /// Errors of which neither the arguments of the handler nor the method tell.
    errors: &'static [u16],
}

/// A header of an answer.
pub(in crate::api) struct HeaderOf {
    pub(super) name: &'static str,
    description: &'static str,
}

const fn header(name: &'static str, description: &'static str) -> HeaderOf {
    HeaderOf { name, description }
}

pub(super) const ETAG: HeaderOf = header("ETag", "What the answer shows, in short.");
pub(super) const RETRY_AFTER: HeaderOf = header("Retry-After", "Seconds to wait.");
pub(super) const WWW_AUTHENTICATE: HeaderOf = header("WWW-Authenticate", "How to sign in.");
const LINK: HeaderOf = header("Link", "The next page, rel=\"next\", if there is one.");
const LOCATION: HeaderOf = header("Location", "Where it is.");
const CONSISTENCY_TOKEN: HeaderOf =
    header("Consistency-Token", "Sent back with a later request: its answer is no older than this write.");
const CACHE_CONTROL: HeaderOf = header("Cache-Control", "Whether the client may keep it.");

const JSON: &str = "application/json";

impl HeaderOf {
    pub(super) fn build(&self) -> Header {
        let text = ObjectBuilder::new().schema_type(Type::String);
        HeaderBuilder::new().schema(Some(text)).description(Some(self.description)).build()
    }
}

fn refer<T: ToSchema>(sketch: &mut Sketch) -> RefOr<Schema> {
    sketch.refer::<T>()
}

/// An object that clients may keep and ask again for: 200, or 304.
pub(in crate::api) const fn view<T: ToSchema>(summary: &'static str) -> Answer {
    Answer {
        summary,
        status: 200,
        content: Some((JSON, refer::<T>)),
        headers: &[ETAG, CACHE_CONTROL],
        unless: Some((304, "The client has it already: If-None-Match.")),
        errors: &[],
    }
}

/// A page of a list of such objects.
pub(in crate::api) const fn page<T: ToSchema>(summary: &'static str) -> Answer {
    Answer { headers: &[ETAG, CACHE_CONTROL, LINK], ..view::<Page<T>>(summary) }
}

/// What nobody may keep.
pub(in crate::api) const fn uncached<T: ToSchema>(summary: &'static str) -> Answer {
    Answer { headers: &[CACHE_CONTROL, LINK], unless: None, ..view::<T>(summary) }
}

/// Something was made: 201.
pub(in crate::api) const fn created<T: ToSchema>(summary: &'static str) -> Answer {
    let headers = &[ETAG, LOCATION, CONSISTENCY_TOKEN];
    Answer { summary, status: 201, content: Some((JSON, refer::<T>)), headers, unless: None, errors: &[] }
}

/// Something was made, or was there: 201 or 200.
pub(in crate::api) const fn ensured<T: ToSchema>(summary: &'static str) -> Answer {
    Answer { unless: Some((200, "It was there already.")), ..created::<T>(summary) }
}

/// Something was changed: 200.
pub(in crate::api) const fn changed<T: ToSchema>(summary: &'static str) -> Answer {
    let headers = &[ETAG, CONSISTENCY_TOKEN];
    Answer { status: 200, headers, ..created::<T>(summary) }
}

/// Something was changed that nobody may keep: 200.
pub(in crate::api) const fn changed_uncached<T: ToSchema>(summary: &'static str) -> Answer {
    Answer { headers: &[CONSISTENCY_TOKEN], ..changed::<T>(summary) }
}

/// Secrets: 200.
pub(in crate::api) const fn secrets<T: ToSchema>(summary: &'static str) -> Answer {
    changed_uncached::<T>(summary)
}

/// Secrets of something new: 201.
pub(in crate::api) const fn new_secrets<T: ToSchema>(summary: &'static str) -> Answer {
    Answer { status: 201, ..secrets::<T>(summary) }
}

/// Done, and nothing to show: 204.
pub(in crate::api) const fn done(summary: &'static str) -> Answer {
    Answer { summary, status: 204, content: None, headers: &[CONSISTENCY_TOKEN], unless: None, errors: &[] }
}

/// It is elsewhere: 308.
pub(in crate::api) const fn moved(summary: &'static str) -> Answer {
    Answer { status: 308, headers: &[LOCATION], ..done(summary) }
}

/// Something that is no JSON.
pub(in crate::api) const fn text(summary: &'static str, content_type: &'static str) -> Answer {
    let content = Some((content_type, refer_text as Describe));
    Answer { status: 200, content, headers: &[], ..done(summary) }
}

/// An object that is described elsewhere.
pub(in crate::api) const fn json(summary: &'static str) -> Answer {
    let content = Some((JSON, refer_object as Describe));
    Answer { status: 200, content, headers: &[], ..done(summary) }
}

fn refer_object(_: &mut Sketch) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::Object).into()
}

fn refer_text(_: &mut Sketch) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).into()
}

impl Answer {
    /// May also be one of these errors.
    pub(in crate::api) const fn or(self, errors: &'static [u16]) -> Self {
        Self { errors, ..self }
    }

    /// Adds the answers, and what can be in the way of a write.
    pub(super) fn sketch(&self, sketch: &mut Sketch) {
        if sketch.is_write() && !sketch.secured.is_empty() {
            sketch.errors.extend([403, 404, 409]);
        }
        sketch.errors.extend(self.errors);
        let content = self.content.map(|(content_type, schema)| (content_type, schema(sketch)));
        let response = |description: &str| {
            let mut response = ResponseBuilder::new().description(description);
            for header in self.headers {
                response = response.header(header.name, header.build());
            }
            if let Some((content_type, schema)) = &content {
                let content = ContentBuilder::new().schema(Some(schema.clone())).build();
                response = response.content(*content_type, content);
            }
            response.build()
        };
        let description = match self.status {
            201 => "It is made.",
            204 => "It is done.",
            308 => "It is elsewhere.",
            _ => "It is so.",
        };
        sketch.answers.insert(self.status, response(description));
        if let Some((status, description)) = self.unless {
            let mut response: Response = response(description);
            if status == 304 {
                response.content.clear();
            }
            sketch.answers.insert(status, response);
        }
    }
}
