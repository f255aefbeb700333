//! The document that describes the API, as somebody reads it who has nothing else.

use std::collections::{BTreeMap, HashSet};

use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::Client;

/// What `/openapi.json` says.
#[derive(Debug)]
pub struct Document(pub Value);

/// Something that the API does.
#[derive(Debug, Clone)]
pub struct Operation {
    pub id: String,
    pub method: Method,
    /// With names in braces.
    pub path: String,
    pub described: Value,
}

impl Document {
    /// As an instance serves it.
    pub async fn of(client: &Client) -> Self {
        Self(client.get("/openapi.json").await.expect(200).json())
    }

    /// Everything that the API does.
    pub fn operations(&self) -> Vec<Operation> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        let operations = paths.flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, described)| Operation {
                id: described["operationId"].as_str().unwrap().to_owned(),
                method: Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(),
                path: path.clone(),
                described: described.clone(),
            })
        });
        operations.collect()
    }

    /// Every path, with what it can be asked.
    pub fn routes(&self) -> BTreeMap<String, Vec<Method>> {
        let mut routes = BTreeMap::<_, Vec<_>>::new();
        for Operation { path, method, .. } in self.operations() {
            let known = routes.entry(path).or_default();
            if method == Method::GET {
                known.push(Method::HEAD);
            }
            known.push(method);
        }
        routes
    }

    /// What is described here, or where `$ref` leads.
    pub fn resolve<'a>(&'a self, described: &'a Value) -> &'a Value {
        described["$ref"].as_str().map_or(described, |reference| {
            let target = self.0.pointer(reference.strip_prefix('#').unwrap());
            target.unwrap_or_else(|| panic!("{reference} leads nowhere"))
        })
    }

    /// What an operation answers with a status, if it says so.
    pub fn response<'a>(&'a self, operation: &'a Operation, status: u16) -> Option<&'a Value> {
        Some(self.resolve(operation.described["responses"].get(status.to_string())?))
    }

    /// Checks what was sent to the service: the form of texts is the service's to judge.
    pub fn validator_of_input(&self, schema: &Value) -> Validator {
        validator(schema, &self.0["components"]["schemas"], false)
    }

    /// Checks what the service has answered, also that there is nothing in it of which the document does not speak.
    pub fn validator_of_output(&self, schema: &Value) -> Validator {
        let mut schemas = self.0["components"]["schemas"].clone();
        close(&mut schemas);
        validator(schema, &schemas, true)
    }
}

fn validator(schema: &Value, schemas: &Value, formats: bool) -> Validator {
    // Beside what it refers to.
    let whole = json!({"allOf": [schema], "components": {"schemas": schemas}});
    jsonschema::draft202012::options().should_validate_formats(formats).build(&whole).unwrap()
}

/// No object may have members that are not described.
fn close(schemas: &mut Value) {
    for schema in schemas.as_object_mut().unwrap().values_mut().filter_map(Value::as_object_mut) {
        if schema.contains_key("properties") {
            schema.insert("additionalProperties".to_owned(), false.into());
        }
    }
}

impl Operation {
    /// Method and path.
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Nobody gets in without a credential.
    pub fn is_secured(&self) -> bool {
        let ways = self.described["security"].as_array().map_or(&[][..], Vec::as_slice);
        !ways.is_empty() && ways.iter().all(|way| way != &json!({}))
    }

    /// It does not end by itself.
    pub fn is_stream(&self) -> bool {
        !self.described["responses"]["200"]["content"]["text/event-stream"].is_null()
    }

    /// What it answers may be cached, by the service and by the client.
    pub fn is_cached(&self) -> bool {
        self.statuses().contains(&304)
    }

    /// What it may answer.
    pub fn statuses(&self) -> HashSet<u16> {
        self.described["responses"]
            .as_object()
            .unwrap()
            .keys()
            .map(|status| status.parse().unwrap())
            .collect()
    }

    /// Its parameters in `place`: `path`, `query` or `header`.
    pub fn parameters(&self, place: &str) -> Vec<&Map<String, Value>> {
        let parameters = self.described["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        parameters.iter().filter(|one| one["in"] == place).filter_map(Value::as_object).collect()
    }

    /// The schema of its body, and whether it has to be there.
    pub fn body(&self) -> Option<(&Value, bool)> {
        let body = self.described.get("requestBody")?;
        Some((&body["content"]["application/json"]["schema"], body["required"] == true))
    }

    /// The names in its path.
    pub fn names(&self) -> Vec<&str> {
        self.path.split('{').skip(1).map(|part| part.split_once('}').unwrap().0).collect()
    }

    /// Its path with something in the place of each name.
    pub fn path_with(&self, value: impl FnMut(&str) -> String) -> String {
        fill(&self.path, value)
    }
}

/// A path with something in the place of each name.
pub fn fill(path: &str, mut value: impl FnMut(&str) -> String) -> String {
    let mut parts = path.split('{');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap();
        filled.push_str(&value(name));
        filled.push_str(rest);
    }
    filled
}
