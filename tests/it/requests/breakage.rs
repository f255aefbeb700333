//! What can be wrong with a request.

use rand::{
    Rng as _,
    rngs::StdRng,
    seq::{IndexedRandom as _, IteratorRandom as _},
};
use serde_json::{Value, json};

use super::{generator::Generator, judge::Request, values};
use crate::support::{
    openapi::Operation,
    world::{Places, at, with},
};

impl Generator {
    /// Breaks something about it.
    pub(super) fn break_request(&mut self, request: &mut Request, places: &Places) {
        let operation = self.api.operations[request.operation].clone();
        let what = match self.rng.random_range(0..10) {
            0..2 => self.break_path(request, &operation, places),
            2 => self.break_query(request),
            3..5 => self.break_header(request),
            _ if request.body.is_none() => {
                request.body = Some(values::any(&mut self.rng).to_string().into_bytes());
                "a body where none was to be"
            }
            5..8 => self.break_member(request),
            8 => self.break_bytes(request),
            _ => self.break_type(request),
        };
        request.broken.push(what);
    }

    fn break_path(&mut self, request: &mut Request, operation: &Operation, places: &Places) -> &'static str {
        let Some(name) = operation.names().choose(&mut self.rng).copied() else {
            return self.break_query(request);
        };
        let id = places[name].clone();
        let value = match self.rng.random_range(0..8) {
            0 => values::uuid(&mut self.rng),
            1 => places.values().filter(|value| !value.is_empty()).choose(&mut self.rng).unwrap().clone(),
            2 => id.replace('-', ""),
            3 => values::encoded(&format!("{{{}}}", id.to_uppercase())),
            4 => format!("{id}0"),
            5 => {
                const ODD: [&str; 9] =
                    ["0", "-1", "1.5", "9223372036854775808", "%00", "%FF%FE", "%2F%2F", "%zz", "%C3%28"];
                (*ODD.choose(&mut self.rng).unwrap()).to_owned()
            }
            6 => "x".repeat(3000),
            _ => values::encoded(&values::wild(&mut self.rng)),
        };
        // Dots would lead elsewhere, before they are even sent.
        let value =
            if value.replace("%2E", "").trim_matches('.').is_empty() { "x".to_owned() } else { value };
        let query = request.target.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
        request.target = at(&operation.path, &with(places, [(name, value)])) + &query;
        "a part of the path"
    }

    fn break_query(&mut self, request: &mut Request) -> &'static str {
        const NAMES: [&str; 9] =
            ["limit", "cursor", "q", "type", "unread", "before", "after", "last_event_id", "surplus"];
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let mut parts: Vec<_> = query.split('&').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let rng = &mut self.rng;
        let name = *NAMES.choose(rng).unwrap();
        match rng.random_range(0..7) {
            0 => parts.extend(parts.choose(rng).cloned()),
            1 => {
                parts.choose(rng).is_some().then(|| parts.pop());
            }
            2 => parts.push(
                ["limit=0", "limit=101", "limit=1e1", "limit=", "limit=99999999999999999999"]
                    .choose(rng)
                    .map(|part| (*part).to_owned())
                    .unwrap(),
            ),
            3 => parts.push(
                (*["%", "%zz", "%FF=%FF", "=", "==", "&&", "q", "q=%00", "cursor=AXsi"].choose(rng).unwrap())
                    .to_owned(),
            ),
            4 => match parts.iter_mut().find(|part| part.starts_with("cursor=")) {
                Some(cursor) => tamper(rng, cursor),
                None => parts.push(format!("cursor={}", values::uuid(rng))),
            },
            _ => parts.push(format!("{name}={}", values::encoded(&values::wild(rng)))),
        }
        request.target = format!("{path}?{}", parts.join("&"));
        "the query"
    }

    fn break_header(&mut self, request: &mut Request) -> &'static str {
        const NAMES: [&str; 12] = [
            "if-match",
            "if-none-match",
            "idempotency-key",
            "consistency-token",
            "last-event-id",
            "authorization",
            "x-request-id",
            "accept",
            "accept-encoding",
            "content-encoding",
            "x-forwarded-for",
            "range",
        ];
        let name = *NAMES.choose(&mut self.rng).unwrap();
        let value = match self.rng.random_range(0..5) {
            0 => {
                let count = self.rng.random_range(0..40);
                (0..count).map(|_| self.rng.random_range(128..=255)).collect()
            }
            1 => vec![b'x'; 4000],
            2 => {
                let known = [&self.etags, &self.tokens, &self.keys]
                    .choose(&mut self.rng)
                    .unwrap()
                    .choose(&mut self.rng);
                known.cloned().unwrap_or_default().into_bytes()
            }
            _ => values::wild(&mut self.rng).into_bytes(),
        };
        let legal = value.into_iter().filter(|byte| (32..=255).contains(byte) && *byte != 127);
        let value: Vec<u8> = legal.take(5000).collect();
        let present = request.headers.iter().position(|(one, _)| one == name);
        match present.filter(|_| self.rng.random()) {
            Some(at) if self.rng.random() => {
                request.headers.remove(at);
            }
            Some(at) => request.headers[at].1 = value,
            None => request.headers.push((name.to_owned(), value)),
        }
        "a header"
    }

    fn break_member(&mut self, request: &mut Request) -> &'static str {
        let sent = request.body.as_deref().map(serde_json::from_slice::<Value>);
        let Some(Ok(Value::Object(mut members))) = sent else { return self.break_bytes(request) };
        let (schema, _) = match self.api.operations[request.operation].body() {
            Some((schema, required)) => (self.api.document.resolve(schema), required),
            None => return self.break_bytes(request),
        };
        let names: Vec<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        let name = names.choose(&mut self.rng).unwrap().clone();
        let what = match self.rng.random_range(0..6) {
            0 => {
                members.remove(&name);
                "a member is missing"
            }
            1 => {
                let surplus =
                    ["surplus", "id", "version", "Name", "", "__proto__"].choose(&mut self.rng).unwrap();
                members.insert((*surplus).to_owned(), values::any(&mut self.rng));
                "a member too many"
            }
            2 => {
                members.insert(name, json!(values::wild(&mut self.rng)));
                "a wild text"
            }
            _ => {
                members.insert(name, values::any(&mut self.rng));
                "a member of any type"
            }
        };
        request.body = Some(Value::Object(members).to_string().into_bytes());
        what
    }

    fn break_bytes(&mut self, request: &mut Request) -> &'static str {
        let Some(body) = &mut request.body else { return "" };
        let rng = &mut self.rng;
        match rng.random_range(0..8) {
            0 => body.truncate(rng.random_range(0..=body.len())),
            1 => body.extend_from_slice(b" {}"),
            2 => *body = values::any(rng).to_string().into_bytes(),
            3 => *body = format!("{{\"name\": {}", "[".repeat(10_000)).into_bytes(),
            4 => body.resize(if rng.random() { 300_000 } else { 1000 }, b' '),
            // The first member a second time, as something else.
            5 => {
                let text = String::from_utf8_lossy(body).into_owned();
                let first = text.split('"').nth(1).unwrap_or_default();
                *body = format!("{{\"{first}\": null, {}", text.trim_start_matches('{')).into_bytes();
            }
            6 => body.insert(0, 0xff),
            _ if body.is_empty() => {}
            _ => {
                let at = rng.random_range(0..body.len());
                body[at] = rng.random();
            }
        }
        "the bytes of the body"
    }

    fn break_type(&mut self, request: &mut Request) -> &'static str {
        const TYPES: [&str; 8] = [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/merge-patch+json",
            "application/json; charset=latin1",
            "application/jsonx",
            "*/*",
            "",
            "multipart/form-data; boundary=x",
        ];
        request.headers.retain(|(name, _)| name != "content-type");
        if self.rng.random_bool(0.8) {
            let value = (*TYPES.choose(&mut self.rng).unwrap()).into();
            request.headers.push(("content-type".to_owned(), value));
        }
        "the type of the body"
    }
}

/// Changes one character of a value.
fn tamper(rng: &mut StdRng, part: &mut String) {
    let at = rng.random_range(7..=part.len().max(8) - 1).min(part.len() - 1);
    let other = if part.as_bytes()[at] == b'A' { "B" } else { "A" };
    part.replace_range(at..=at, other);
}
