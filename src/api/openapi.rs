//! The OpenAPI document, and the page that shows it.
//!
//! **Invariant.** What is mounted is described, and nothing else is: `Resource` does both at once. What goes into a
//! request is taken from the handler's own arguments; what comes out is said beside it, in the table of [`super`].

pub(super) mod answers;
pub(super) mod inputs;

use std::{any::type_name, sync::LazyLock};

use actix_web::{Handler, Responder, Route, middleware::from_fn, web};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder,
        OpenApiVersion, PathsBuilder, Ref, RefOr, Response, ResponseBuilder,
        path::{Operation, OperationBuilder, PathItem},
        schema::Schema,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use self::{
    answers::Answer,
    inputs::{Inputs, Sketch},
};
use crate::{error::Problem, http::gate::let_in, metrics};

/// What a URL answers, and its description.
pub(super) struct Resource {
    path: &'static str,
    routes: actix_web::Resource,
    operations: Vec<Described>,
}

/// An operation, described only when somebody asks.
struct Described {
    method: HttpMethod,
    handler: &'static str,
    inputs: fn(&mut Sketch),
    answer: Answer,
}

/// A URL that is mounted at `path`, which may be relative to a scope.
pub(super) fn resource(path: &'static str) -> Resource {
    Resource { path, routes: web::resource(path), operations: Vec::new() }
}

macro_rules! methods {
    ($($name:ident: $method:ident;)+) => {$(
        /// Answers this method.
        pub(super) fn $name<F, Args>(self, handler: F, answer: Answer) -> Self
        where
            F: Handler<Args>,
            Args: Inputs + 'static,
            F::Output: Responder + 'static,
        {
            self.route(HttpMethod::$method, web::$name(), handler, answer)
        }
    )+};
}

impl Resource {
    /// Answers GET, and HEAD beside it.
    pub(super) fn get<F, Args>(mut self, handler: F, answer: Answer) -> Self
    where
        F: Handler<Args>,
        Args: Inputs + 'static,
        F::Output: Responder + 'static,
    {
        self.routes = self.routes.route(guarded::<Args>(web::head().to(handler.clone())));
        self.route(HttpMethod::Get, web::get(), handler, answer)
    }

    methods! {
        post: Post;
        put: Put;
        patch: Patch;
        delete: Delete;
    }

    fn route<F, Args>(mut self, method: HttpMethod, route: Route, handler: F, answer: Answer) -> Self
    where
        F: Handler<Args>,
        Args: Inputs + 'static,
        F::Output: Responder + 'static,
    {
        let name = type_name::<F>();
        self.operations.push(Described { method, handler: name, inputs: Args::describe, answer });
        self.routes = self.routes.route(guarded::<Args>(route.to(handler)));
        self
    }

    /// Where it is mounted, below its prefix.
    pub(super) const fn path(&self) -> &'static str {
        self.path
    }

    /// For Actix, below `prefix`. Resources rather than routes: they answer 405, with `Allow`.
    pub(super) fn into_routes(self, prefix: &str) -> actix_web::Resource {
        self.routes.app_data(metrics::Route::new(format!("{prefix}{}", self.path)))
    }
}

/// Signs in and charges before the handler, if that has a caller among its arguments.
fn guarded<Args: Inputs>(route: Route) -> Route {
    match Args::access() {
        Some(access) => route.wrap(from_fn(move |request, next| let_in(access, request, next))),
        None => route,
    }
}

impl Described {
    /// `lockstep::api::documents::list_documents`: module and function.
    fn names(&self) -> (&'static str, &'static str) {
        let mut words = self.handler.rsplit("::");
        let name = words.next().unwrap_or_default();
        (words.next().unwrap_or_default(), name)
    }

    fn operation(&self, path: &str, schemas: &mut Schemas) -> Operation {
        let (group, name) = self.names();
        let mut sketch = Sketch::new(path, self.method.clone());
        (self.inputs)(&mut sketch);
        self.answer.sketch(&mut sketch);
        let Sketch { parameters, body, secured, errors, answers, schemas: found, .. } = sketch;
        schemas.extend(found);
        let mut operation = OperationBuilder::new()
            .operation_id(Some(name))
            .tag(group)
            .summary(Some(self.answer.summary))
            .request_body(body);
        if !parameters.is_empty() {
            operation = operation.parameters(Some(parameters));
        }
        for requirement in secured {
            operation = operation.security(requirement);
        }
        for (status, response) in answers {
            operation = operation.response(status.to_string(), response);
        }
        for status in errors {
            operation = operation.response(status.to_string(), Ref::from_response_name(error_name(status)));
        }
        operation.build()
    }
}

type Schemas = Vec<(String, RefOr<Schema>)>;

/// The name of a shared description of an error.
fn error_name(status: u16) -> String {
    let status = actix_web::http::StatusCode::from_u16(status);
    let reason = status.ok().and_then(|status| status.canonical_reason()).unwrap_or("Error");
    reason.replace(' ', "")
}

/// The errors that operations may answer, and the headers that go with them.
const ERRORS: [(u16, &str, &[answers::HeaderOf]); 13] = [
    (400, "The request cannot be read.", &[]),
    (401, "Nobody is signed in, or no longer.", &[answers::WWW_AUTHENTICATE]),
    (403, "The caller may see this but not do this with it.", &[]),
    (404, "There is nothing here that the caller may see.", &[]),
    (409, "It contradicts what is there.", &[]),
    (412, "It was changed since the caller has seen it.", &[answers::ETAG]),
    (413, "The body is too large.", &[]),
    (415, "The body is of a type that is not taken here.", &[]),
    (422, "The request breaks rules, each of which is listed.", &[]),
    (428, "If-Match is missing.", &[]),
    (429, "The caller has asked too much.", &[answers::RETRY_AFTER]),
    (500, "Something went wrong on our side.", &[]),
    (503, "The service cannot do this at the moment.", &[answers::RETRY_AFTER]),
];

fn error((_, description, headers): (u16, &str, &[answers::HeaderOf])) -> Response {
    let problem = Ref::from_schema_name(Problem::name());
    let content = ContentBuilder::new().schema(Some(problem)).build();
    let response =
        ResponseBuilder::new().description(description).content("application/problem+json", content);
    headers.iter().fold(response, |response, header| response.header(header.name, header.build())).build()
}

/// The document, which is the same in every process of a release.
pub fn document() -> &'static OpenApi {
    static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(build);
    &DOCUMENT
}

fn build() -> OpenApi {
    let mut schemas = Vec::new();
    Problem::schemas(&mut schemas);
    schemas.push((Problem::name().into_owned(), Problem::schema()));
    let mut paths = PathsBuilder::new();
    let tables = [("", super::root_resources()), ("/v1", super::v1_resources())];
    let resources =
        tables.into_iter().flat_map(|(prefix, table)| table.into_iter().map(move |r| (prefix, r)));
    for (prefix, resource) in resources {
        // A pattern that is no plain segment is Actix's affair.
        let path = format!("{prefix}{}", resource.path.replace(":.*}", "}"));
        for described in &resource.operations {
            let operation = described.operation(&path, &mut schemas);
            paths = paths.path(&path, PathItem::new(described.method.clone(), operation));
        }
    }
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let ticket = ApiKey::Query(ApiKeyValue::new("ticket"));
    let mut components = ComponentsBuilder::new()
        .security_scheme("bearerAuth", SecurityScheme::Http(bearer))
        .security_scheme("ticket", SecurityScheme::ApiKey(ticket));
    for (name, schema) in schemas {
        components = components.schema(name, schema);
    }
    for described in ERRORS {
        components = components.response(error_name(described.0), error(described));
    }
    let license = LicenseBuilder::new().name("GPL-3.0-or-later").identifier(Some("GPL-3.0-or-later")).build();
    let info = InfoBuilder::new()
        .title("lockstep")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Team workspaces: documents, channels, messages, notifications, search. Every GET answers HEAD too. \
             Every answer has X-Request-Id and X-Served-By; clients must ignore members and event types that they do \
             not know.",
        ))
        .license(Some(license))
        .build();
    OpenApiBuilder::new()
        .openapi(OpenApiVersion::Version31)
        .info(info)
        .paths(paths)
        .components(Some(components.build()))
        .build()
}
