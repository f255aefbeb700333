//! What goes into a request, as the arguments of its handler say.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::{
    FromRequest, HttpRequest,
    web::{Data, Path, Query},
};
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, HttpMethod, ObjectBuilder, Ref, RefOr, Required, Response, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
        request_body::{RequestBody, RequestBodyBuilder},
        schema::Schema,
        security::SecurityRequirement,
    },
};

use crate::{
    app::App,
    domain::id::{ChannelId, DocumentId, MessageId, NotificationId, UserId, WorkspaceId},
    http::{
        body::{Body, Creation, OptionalBody},
        caller::{Access, Caller, CallerArgument, Listener, Sender, Staff, Unmetered},
        client_address::ClientAddress,
        if_match::IfMatch,
    },
};

/// A description that grows.
pub(in crate::api) struct Sketch {
    /// The names in the path, in order.
    names: Vec<String>,
    method: HttpMethod,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<RequestBody>,
    /// The ways to sign in, one of which is needed.
    pub(super) secured: Vec<SecurityRequirement>,
    /// Statuses.
    pub(super) errors: BTreeSet<u16>,
    pub(super) answers: BTreeMap<u16, Response>,
    pub(super) schemas: Vec<(String, RefOr<Schema>)>,
}

impl Sketch {
    pub(super) fn new(path: &str, method: HttpMethod) -> Self {
        let names = path.split('{').skip(1).filter_map(|part| Some(part.split_once('}')?.0.to_owned()));
        Self {
            names: names.collect(),
            method,
            parameters: Vec::new(),
            body: None,
            secured: Vec::new(),
            // A guard may stand before anything, and so may a malformed Consistency-Token.
            errors: if path.starts_with("/v1/") {
                BTreeSet::from([400, 429, 500, 503])
            } else {
                BTreeSet::new()
            },
            answers: BTreeMap::new(),
            schemas: Vec::new(),
        }
    }

    /// A reference to a type that the document explains once.
    pub(super) fn refer<T: ToSchema>(&mut self) -> RefOr<Schema> {
        T::schemas(&mut self.schemas);
        self.schemas.push((T::name().into_owned(), T::schema()));
        Ref::from_schema_name(T::name()).into()
    }

    pub(super) fn is_write(&self) -> bool {
        !matches!(self.method, HttpMethod::Get)
    }

    fn header(&mut self, name: &str, description: &str) {
        let text = ObjectBuilder::new().schema_type(Type::String);
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(text));
        self.parameters.push(parameter.build());
    }

    fn request_body<T: ToSchema>(&mut self, required: Required) {
        self.errors.extend([400, 413, 415, 422]);
        let schema = self.refer::<T>();
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let mut body = RequestBodyBuilder::new().required(Some(required));
        if matches!(self.method, HttpMethod::Patch) {
            body = body.content("application/merge-patch+json", content.clone());
        }
        self.body = Some(body.content("application/json", content).build());
    }
}

/// An argument of a handler.
pub(in crate::api) trait Input: FromRequest {
    /// What has to stand in front of a handler with such an argument.
    const ACCESS: Option<Access> = None;

    /// Adds what it takes from the request.
    fn describe(sketch: &mut Sketch);
}

/// All arguments of a handler.
pub(in crate::api) trait Inputs: FromRequest {
    /// What has to stand in front of the handler.
    fn access() -> Option<Access>;

    /// Adds what they take from the request.
    fn describe(sketch: &mut Sketch);
}

macro_rules! all_inputs {
    ($(($($input:ident),*);)+) => {$(
        impl<$($input: Input + 'static),*> Inputs for ($($input,)*) {
            fn access() -> Option<Access> {
                None$(.or($input::ACCESS))*
            }

            fn describe(sketch: &mut Sketch) {
                let _ = &sketch;
                $($input::describe(sketch);)*
            }
        }
    )+};
}

all_inputs! {
    ();
    (A);
    (A, B);
    (A, B, C);
    (A, B, C, D);
    (A, B, C, D, E);
    (A, B, C, D, E, F);
}

/// Nothing of the request.
impl Input for Data<App> {
    fn describe(_: &mut Sketch) {}
}

/// It is not sent but seen.
impl Input for ClientAddress {
    fn describe(sketch: &mut Sketch) {
        sketch.errors.insert(429);
    }
}

/// Only for what is in the answer.
impl Input for HttpRequest {
    fn describe(_: &mut Sketch) {}
}

macro_rules! callers {
    ($($caller:ident),+) => {$(
        impl Input for $caller {
            const ACCESS: Option<Access> = Some(<Self as CallerArgument>::ACCESS);

            fn describe(sketch: &mut Sketch) {
                describe_caller(sketch, <Self as CallerArgument>::ACCESS);
            }
        }
    )+};
}

callers!(Caller, Sender, Unmetered, Listener);

impl Input for Staff {
    const ACCESS: Option<Access> = Some(<Self as CallerArgument>::ACCESS);

    fn describe(sketch: &mut Sketch) {
        describe_caller(sketch, <Self as CallerArgument>::ACCESS);
        sketch.errors.insert(403);
    }
}

fn describe_caller(sketch: &mut Sketch, access: Access) {
    sketch.secured.push(SecurityRequirement::new::<_, [&str; 0], &str>("bearerAuth", []));
    sketch.errors.insert(401);
    sketch.header("Consistency-Token", "From an earlier write: the answer is no older than that.");
    if access.by_ticket {
        sketch.secured.push(SecurityRequirement::new::<_, [&str; 0], &str>("ticket", []));
        sketch.header(
            "Last-Event-ID",
            "The id of the last event that was received: the stream goes on after it.",
        );
    }
}

impl Input for IfMatch {
    fn describe(sketch: &mut Sketch) {
        sketch.errors.extend([412, 428]);
        sketch.header(
            "If-Match",
            "The ETag of what the caller has seen. Required, but for those who may not write at all.",
        );
    }
}

impl<T: ToSchema + serde::de::DeserializeOwned + 'static> Input for Body<T> {
    fn describe(sketch: &mut Sketch) {
        sketch.request_body::<T>(Required::True);
    }
}

impl<T: ToSchema + serde::de::DeserializeOwned + Default + 'static> Input for OptionalBody<T> {
    fn describe(sketch: &mut Sketch) {
        sketch.request_body::<T>(Required::False);
    }
}

impl<T: ToSchema + serde::de::DeserializeOwned + 'static> Input for Creation<T> {
    fn describe(sketch: &mut Sketch) {
        sketch.request_body::<T>(Required::True);
        sketch.errors.insert(409);
        sketch.header(
            "Idempotency-Key",
            "A request that is repeated with the same key and body within 24 hours makes nothing new.",
        );
    }
}

impl<T: IntoParams + serde::de::DeserializeOwned + 'static> Input for Query<T> {
    fn describe(sketch: &mut Sketch) {
        sketch.errors.extend([400, 422]);
        sketch.parameters.extend(T::into_params(|| Some(ParameterIn::Query)));
    }
}

/// What stands in a path.
pub(in crate::api) trait Parts {
    /// The schemas of its parts, in order.
    fn schemas(sketch: &mut Sketch) -> Vec<RefOr<Schema>>;
}

/// A part of a path.
trait Part {
    fn schema(sketch: &mut Sketch) -> RefOr<Schema>;
}

macro_rules! ids {
    ($($id:ident),+) => {$(
        impl Part for $id {
            fn schema(sketch: &mut Sketch) -> RefOr<Schema> {
                sketch.refer::<Self>()
            }
        }

        impl Parts for $id {
            fn schemas(sketch: &mut Sketch) -> Vec<RefOr<Schema>> {
                vec![<Self as Part>::schema(sketch)]
            }
        }
    )+};
}

ids!(ChannelId, DocumentId, MessageId, NotificationId, UserId, WorkspaceId);

/// The number of a version.
impl Part for i64 {
    fn schema(_: &mut Sketch) -> RefOr<Schema> {
        <i64 as PartialSchema>::schema()
    }
}

/// The rest of a path.
impl Parts for String {
    fn schemas(_: &mut Sketch) -> Vec<RefOr<Schema>> {
        vec![<Self as PartialSchema>::schema()]
    }
}

impl<A: Part, B: Part> Parts for (A, B) {
    fn schemas(sketch: &mut Sketch) -> Vec<RefOr<Schema>> {
        vec![A::schema(sketch), B::schema(sketch)]
    }
}

impl<A: Part, B: Part, C: Part> Parts for (A, B, C) {
    fn schemas(sketch: &mut Sketch) -> Vec<RefOr<Schema>> {
        vec![A::schema(sketch), B::schema(sketch), C::schema(sketch)]
    }
}

impl<T: Parts + serde::de::DeserializeOwned + 'static> Input for Path<T> {
    fn describe(sketch: &mut Sketch) {
        sketch.errors.insert(404);
        for (name, schema) in sketch.names.clone().into_iter().zip(T::schemas(sketch)) {
            let parameter = ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .schema(Some(schema));
            sketch.parameters.push(parameter.build());
        }
    }
}
