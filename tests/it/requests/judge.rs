//! Whether an answer is one of which the document speaks.

use std::{collections::HashMap, fmt};

use jsonschema::Validator;
use reqwest::Method;
use serde_json::Value;

use crate::support::{
    Client, Reply,
    openapi::{Document, Operation},
};

/// A request that was made up.
#[derive(Clone)]
pub struct Request {
    /// Which operation it is, by its place in [`Api::operations`].
    pub operation: usize,
    pub sender: Sender,
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Option<Vec<u8>>,
    /// What is wrong with it, as far as it was meant to be.
    pub broken: Vec<&'static str>,
}

/// Who sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// One of those who stay, by number.
    Resident(usize),
    /// One of those whose sessions may end, by number.
    Passing(usize),
    Nobody,
    /// Somebody with a token that is none.
    Impostor,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} {}", self.sender, self.method, self.target)?;
        for (name, value) in &self.headers {
            write!(f, " | {name}: {}", value.escape_ascii())?;
        }
        if let Some(body) = &self.body {
            write!(f, " | {}", String::from_utf8_lossy(body).chars().take(600).collect::<String>())?;
        }
        write!(f, " | broken: {:?}", self.broken)
    }
}

/// The document, and what is made of it once.
pub struct Api {
    pub document: Document,
    pub operations: Vec<Operation>,
    inputs: HashMap<String, Validator>,
    outputs: HashMap<(String, u16), Validator>,
}

impl Api {
    /// As an instance describes it.
    pub async fn read(client: &Client) -> Self {
        let document = Document::of(client).await;
        let operations = document.operations();
        let (mut inputs, mut outputs) = (HashMap::new(), HashMap::new());
        for operation in &operations {
            if let Some((schema, _)) = operation.body() {
                inputs.insert(operation.id.clone(), document.validator_of_input(schema));
            }
            for status in operation.statuses() {
                let content = &document.response(operation, status).unwrap()["content"];
                let types = ["application/json", "application/problem+json"];
                if let Some(schema) = types.iter().find_map(|name| content[name].get("schema")) {
                    outputs.insert((operation.id.clone(), status), document.validator_of_output(schema));
                }
            }
        }
        Self { document, operations, inputs, outputs }
    }

    /// # Errors
    /// What is wrong with the answer.
    pub fn judge(&self, request: &Request, reply: &Reply) -> Result<(), String> {
        let operation = &self.operations[request.operation];
        let (name, status) = (operation.name(), reply.status);
        if status >= 500 {
            return Err(format!("{name} failed with {status}"));
        }
        let Some(response) = self.document.response(operation, status) else {
            return Err(format!("{name} answers {status}, of which the document does not speak"));
        };
        for header in response["headers"].as_object().into_iter().flat_map(|headers| headers.keys()) {
            // There need not be a next page.
            if header != "Link" && !reply.headers.contains_key(header.to_lowercase()) {
                return Err(format!("{name}: {status} without {header}"));
            }
        }
        let sent_none_match = request.headers.iter().any(|(name, _)| name == "if-none-match");
        if status == 304 && !sent_none_match {
            return Err(format!("{name}: not modified since what?"));
        }
        self.judge_body(request, reply, response)?;
        if request.broken.is_empty() && [400, 405, 413, 415].contains(&status) {
            return Err(format!("{name} answers {status} though nothing was wrong with the request"));
        }
        if status < 400 && !self.is_valid(request) {
            return Err(format!("{name} takes a body that is not as the document says"));
        }
        Ok(())
    }

    fn judge_body(&self, request: &Request, reply: &Reply, response: &Value) -> Result<(), String> {
        let operation = &self.operations[request.operation];
        let (name, status) = (operation.name(), reply.status);
        let content_type = reply.header("content-type").split(';').next().unwrap_or_default();
        let described = response["content"].as_object();
        let told: Vec<_> = described.iter().flat_map(|content| content.keys()).map(String::as_str).collect();
        if told.is_empty() {
            return match (content_type, &*reply.text) {
                ("", "") => Ok(()),
                _ => Err(format!("{name}: {status} with a body of type {content_type:?}")),
            };
        }
        if !told.contains(&content_type) && !told.contains(&"*/*") {
            return Err(format!("{name}: {status} of type {content_type:?} instead of {told:?}"));
        }
        if request.method == Method::HEAD {
            return if reply.text.is_empty() { Ok(()) } else { Err(format!("{name}: HEAD has a body")) };
        }
        let Some(validator) = self.outputs.get(&(operation.id.clone(), status)) else { return Ok(()) };
        let body: Value = serde_json::from_str(&reply.text).map_err(|err| format!("{name}: {err}"))?;
        if let Some(error) = validator.iter_errors(&body).next() {
            return Err(format!(
                "{name}: {status} is not as described, at {}: {error}",
                error.instance_path()
            ));
        }
        if status >= 400 {
            let text = |member: &str| body[member].as_str().is_some_and(|text| !text.is_empty());
            if body["status"] != status
                || !["type", "title", "code", "detail", "instance"].into_iter().all(text)
            {
                return Err(format!("{name}: {status} is not the problem that it should be: {body}"));
            }
        }
        Ok(())
    }

    /// The body, if there must be one, is as the document says.
    fn is_valid(&self, request: &Request) -> bool {
        let operation = &self.operations[request.operation];
        let Some((_, required)) = operation.body() else { return true };
        let body = request.body.as_deref().unwrap_or_default();
        (body.is_empty() && !required)
            || serde_json::from_slice(body).is_ok_and(|body| self.inputs[&operation.id].is_valid(&body))
    }
}
