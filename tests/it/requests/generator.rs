//! Making requests up, sending them, and learning from the answers what there is to ask next.

use std::sync::Arc;

use rand::{
    Rng as _, SeedableRng as _,
    rngs::StdRng,
    seq::{IndexedRandom as _, IteratorRandom as _},
};
use reqwest::{
    Method,
    header::{HeaderName, HeaderValue},
};
use serde_json::{Value, json};

use super::{
    judge::{Api, Request, Sender},
    values,
};
use crate::support::{
    Client, Reply,
    client::{PASSWORD, email},
    openapi::Operation,
    world::{Places, World, at, with},
};

/// What was made on the way and may be changed and deleted. What is in the world stays.
struct Spare {
    /// With names in braces.
    path: String,
    places: Places,
    maker: Sender,
}

/// Makes requests up, one after the other.
pub struct Generator {
    pub(super) rng: StdRng,
    pub(super) api: Arc<Api>,
    world: Arc<World>,
    nobody: Client,
    /// Begins the names of what is made.
    name: String,
    count: usize,
    spares: Vec<Spare>,
    /// Those whose sessions may end.
    passing: Vec<Client>,
    /// The addresses that they have registered with.
    accounts: Vec<String>,
    /// The next pages: of which operation, for whom, where.
    links: Vec<(usize, Sender, String)>,
    pub(super) etags: Vec<String>,
    pub(super) tokens: Vec<String>,
    pub(super) keys: Vec<String>,
}

/// The most that is remembered of anything.
const MEMORY: usize = 40;

fn remember<T>(memory: &mut Vec<T>, value: T) {
    if memory.len() == MEMORY {
        memory.remove(0);
    }
    memory.push(value);
}

impl Generator {
    pub fn new(seed: u64, number: u64, api: &Arc<Api>, world: &Arc<World>, nobody: &Client) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed.wrapping_mul(1000).wrapping_add(number)),
            api: Arc::clone(api),
            world: Arc::clone(world),
            nobody: nobody.clone(),
            name: format!("sender{number}"),
            count: 0,
            spares: Vec::new(),
            passing: Vec::new(),
            accounts: Vec::new(),
            links: Vec::new(),
            etags: Vec::new(),
            tokens: Vec::new(),
            keys: Vec::new(),
        }
    }

    /// A name that nothing has yet.
    fn fresh(&mut self) -> String {
        self.count += 1;
        format!("{}-{}", self.name, self.count)
    }

    /// There is somebody whose session may end.
    pub async fn prepare(&mut self) {
        let name = self.fresh();
        self.passing.push(self.nobody.register(&name).await);
        self.accounts.push(email(&name));
    }

    fn residents(&self) -> [&Client; 5] {
        [&self.world.owner, &self.world.member, &self.world.stranger, &self.world.admin, &self.world.guest]
    }

    /// Somebody who is still signed in, if there is anybody.
    fn passing(&mut self) -> Sender {
        let there = (0..self.passing.len()).filter(|number| self.passing[*number].access_token.is_some());
        there.choose(&mut self.rng).map_or(Sender::Nobody, Sender::Passing)
    }

    fn client(&self, sender: Sender) -> Client {
        match sender {
            Sender::Resident(number) => self.residents()[number].clone(),
            Sender::Passing(number) => self.passing.get(number).unwrap_or(&self.nobody).clone(),
            Sender::Nobody => self.nobody.clone(),
            Sender::Impostor => {
                let mut impostor = self.nobody.clone();
                impostor.access_token = Some("garbage".to_owned());
                impostor
            }
        }
    }

    pub fn next_request(&mut self) -> Request {
        let api = Arc::clone(&self.api);
        let weight = |operation: &Operation| match &*operation.id {
            // Passwords take long to check.
            "register" | "log_in" | "change_password" | "log_out" => 5,
            _ => 10,
        };
        let numbered: Vec<_> = api.operations.iter().enumerate().collect();
        let (number, operation) = *numbered.choose_weighted(&mut self.rng, |(_, one)| weight(one)).unwrap();
        let (places, mut sender) = self.places(operation);
        if ["log_out_everywhere", "change_password"].contains(&&*operation.id) {
            sender = self.passing();
        }
        let is_read = operation.method == Method::GET;
        let head = is_read && (operation.is_stream() || self.rng.random_bool(0.1));
        let mut request = Request {
            operation: number,
            sender,
            method: if head { Method::HEAD } else { operation.method.clone() },
            target: at(&operation.path, &places),
            headers: self.headers(operation),
            body: None,
            broken: Vec::new(),
        };
        let query = self.query(operation);
        if !query.is_empty() {
            request.target = format!("{}?{}", request.target, query.join("&"));
        }
        let next: Vec<_> = self.links.iter().filter(|(of, ..)| *of == number).cloned().collect();
        if let (Some((_, sender, target)), true) = (next.choose(&mut self.rng), self.rng.random_bool(0.3)) {
            (request.sender, request.target) = (*sender, target.clone());
        }
        if let Some(body) = self.body(operation) {
            let patch = operation.method == Method::PATCH && self.rng.random();
            let content_type = if patch { "application/merge-patch+json" } else { "application/json" };
            request.headers.push(("content-type".to_owned(), content_type.into()));
            request.body = Some(body.to_string().into_bytes());
        }
        for _ in 0..*[0, 0, 0, 1, 1, 2].choose(&mut self.rng).unwrap() {
            self.break_request(&mut request, &places);
        }
        request
    }

    /// What it is about, and who asks. What is to be changed or deleted is nothing that the others need.
    fn places(&mut self, operation: &Operation) -> (Places, Sender) {
        let mut sender = match self.rng.random_range(0..100) {
            0..45 => Sender::Resident(0),
            45..65 => Sender::Resident(1),
            65..75 => Sender::Resident(2),
            75..83 => Sender::Resident(3),
            83..90 => Sender::Resident(4),
            90..95 => self.passing(),
            95..98 => Sender::Nobody,
            _ => Sender::Impostor,
        };
        let spares = self.spares.iter();
        let (world, private) = (&self.world.places, &self.world.private);
        let changes = [Method::PATCH, Method::DELETE].contains(&operation.method);
        if changes && !operation.path.ends_with("{notification}") {
            let fitting = spares.filter(|spare| spare.path == operation.path);
            if let Some(spare) = fitting.choose(&mut self.rng) {
                if self.rng.random_bool(0.7) {
                    sender = spare.maker;
                }
                return (with(world, []).into_iter().chain(spare.places.clone()).collect(), sender);
            }
            let places = world.keys().map(|name| (name.clone(), values::uuid(&mut self.rng)));
            return (places.collect(), sender);
        }
        let places: Places = match self.rng.random_range(0..10) {
            0..6 => world.clone(),
            6 => private.clone(),
            _ => {
                let made = spares.choose(&mut self.rng);
                if let (Some(spare), true) = (made, self.rng.random_bool(0.7)) {
                    sender = spare.maker;
                }
                let made = made.map(|spare| spare.places.clone());
                world.clone().into_iter().chain(made.unwrap_or_default()).collect()
            }
        };
        // Nobody is put where somebody else would take him away from what he needs.
        let users = if operation.method == Method::PUT { 3..5 } else { 0..5 };
        let resident = self.rng.random_range(users);
        let resident = self.residents()[resident].user_id.clone();
        let passing = self.passing.choose(&mut self.rng).map(|client| client.user_id.clone());
        let user = passing.filter(|_| self.rng.random_bool(0.3)).unwrap_or(resident);
        let file = ["", "index.html", "swagger-ui.css", "swagger-initializer.js", "favicon-32x32.png"];
        let file = (*file.choose(&mut self.rng).unwrap()).to_owned();
        (with(&places, [("user", user), ("file", file)]), sender)
    }

    fn query(&mut self, operation: &Operation) -> Vec<String> {
        let api = Arc::clone(&self.api);
        let mut parts = Vec::new();
        for parameter in operation.parameters("query") {
            let name = parameter["name"].as_str().unwrap();
            let value = match name {
                // Those that are real stand in links and in tickets.
                "cursor" | "ticket" => continue,
                "type" => json!(["document", "message", "document,message"].choose(&mut self.rng).unwrap()),
                "before" | "after" if self.rng.random() => json!(self.world.places["message"]),
                _ => values::of_schema(&mut self.rng, &api.document, &parameter["schema"], &mut |_, _| None),
            };
            if parameter["required"] == true || self.rng.random_bool(0.35) {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                parts.push(format!("{name}={}", values::encoded(&value)));
            }
        }
        parts
    }

    fn headers(&mut self, operation: &Operation) -> Vec<(String, Vec<u8>)> {
        let mut headers = Vec::new();
        for parameter in operation.parameters("header") {
            let name = parameter["name"].as_str().unwrap().to_lowercase();
            let (likely, value) = match &*name {
                "consistency-token" => (0.2, self.tokens.choose(&mut self.rng).cloned()),
                "if-match" => {
                    let known = self.etags.choose(&mut self.rng).filter(|_| self.rng.random_bool(0.3));
                    let other = if self.rng.random_bool(0.2) { "\"99-x\"" } else { "*" };
                    (0.8, Some(known.cloned().unwrap_or_else(|| other.to_owned())))
                }
                "idempotency-key" => {
                    let used = self.keys.choose(&mut self.rng).filter(|_| self.rng.random_bool(0.3)).cloned();
                    let key = used.unwrap_or_else(|| self.fresh());
                    remember(&mut self.keys, key.clone());
                    (0.3, Some(key))
                }
                _ => (0.3, Some(values::uuid(&mut self.rng))),
            };
            if let (Some(value), true) = (value, self.rng.random_bool(likely)) {
                headers.push((name, value.into_bytes()));
            }
        }
        if operation.is_cached() && self.rng.random_bool(0.3) {
            let known = self.etags.choose(&mut self.rng).filter(|_| self.rng.random_bool(0.6));
            let value = known.cloned().unwrap_or_else(|| "*".to_owned());
            headers.push(("if-none-match".to_owned(), value.into_bytes()));
        }
        headers
    }

    fn body(&mut self, operation: &Operation) -> Option<Value> {
        let api = Arc::clone(&self.api);
        let (schema, required) = operation.body()?;
        if !required && self.rng.random_bool(0.4) {
            return None;
        }
        let registers = operation.id == "register";
        let new_name = self.fresh();
        let mut rng = self.rng.clone();
        let mut known = |rng: &mut StdRng, name: &str| {
            let value = match name {
                "email" if registers && rng.random_bool(0.8) => email(&new_name),
                "email" => self.accounts.choose(rng)?.clone(),
                "password" | "current_password" | "new_password" => PASSWORD.to_owned(),
                // What others have already, at times.
                "slug" if rng.random_bool(0.15) => "world".to_owned(),
                "name" if rng.random_bool(0.15) => "general".to_owned(),
                "slug" | "name" => new_name.clone(),
                "timezone" => "Europe/Berlin".to_owned(),
                "avatar_url" => "https://example.com/a.png".to_owned(),
                "refresh_token" => {
                    let there = self.passing.iter().filter(|client| client.access_token.is_some());
                    there.choose(rng)?.refresh_token.clone()
                }
                "user_id" => self.passing.choose(rng).unwrap_or(&self.world.stranger).user_id.clone(),
                "parent_id" => self.world.places["document"].clone(),
                "reply_to" => self.world.places["message"].clone(),
                "client_msg_id" => values::uuid(rng),
                "before" if rng.random() => self.world.places["notification"].clone(),
                "before" => values::time(rng),
                _ => return None,
            };
            Some(value.into())
        };
        let mut body = values::of_schema(&mut rng, &api.document, schema, &mut known);
        // By id or by address: the schema does not say that both are one too many.
        if operation.id == "add_member" && rng.random_bool(0.8) {
            let members = body.as_object_mut().unwrap();
            members.remove(if rng.random() { "email" } else { "user_id" });
        }
        // Hardly any text is the name of a tag.
        if operation.id == "invalidate_cache" && rng.random_bool(0.5) {
            body["tags"] = json!([format!("workspace:{}", self.world.places["workspace"])]);
        }
        self.rng = rng;
        Some(body)
    }

    pub async fn send(&self, request: &Request) -> Reply {
        let client = self.client(request.sender);
        let mut sent = client.request(request.method.clone(), &request.target);
        for (name, value) in &request.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            sent = sent.header(name, HeaderValue::from_bytes(value).unwrap());
        }
        client.send(if let Some(body) = &request.body { sent.body(body.clone()) } else { sent }).await
    }

    /// Keeps what later requests can make use of.
    pub fn learn(&mut self, request: &Request, reply: &Reply) {
        let path = request.target.split('?').next().unwrap_or_default();
        if request.method == Method::DELETE && [204, 404].contains(&reply.status) {
            self.spares.retain(|spare| at(&spare.path, &spare.places) != path);
        }
        if reply.status >= 400 {
            return;
        }
        let ends =
            ["log_out_everywhere", "change_password"].contains(&&*self.api.operations[request.operation].id);
        if let (Sender::Passing(number), true) = (request.sender, ends) {
            self.passing[number].access_token = None;
        }
        for (name, memory) in [("etag", &mut self.etags), ("consistency-token", &mut self.tokens)] {
            if !reply.header(name).is_empty() {
                remember(memory, reply.header(name).to_owned());
            }
        }
        let path_of = |url: &str| Some(format!("/{}", url.split_once("://")?.1.split_once('/')?.1));
        if let Some((next, _)) = reply.header("link").trim_start_matches('<').split_once('>')
            && let Some(target) = path_of(next)
        {
            remember(&mut self.links, (request.operation, request.sender, target));
        }
        if let Some((path, places)) = path_of(reply.header("location")).and_then(|path| self.recognise(&path))
        {
            // Of each kind, so that what is made often does not crowd out the rest.
            let of_kind: Vec<_> = (0..self.spares.len()).filter(|at| self.spares[*at].path == path).collect();
            if of_kind.len() == MEMORY {
                self.spares.remove(of_kind[0]);
            }
            self.spares.push(Spare { path, places, maker: request.sender });
        }
        let json = reply.json();
        if json["access_token"].is_string() && json["refresh_token"].is_string() {
            let signed_in = self.nobody.signed_in(reply);
            remember(&mut self.accounts, reply.field("/user/email"));
            // A refresh token is good for one use.
            let sent = String::from_utf8_lossy(request.body.as_deref().unwrap_or_default());
            match self.passing.iter_mut().find(|client| sent.contains(&*client.refresh_token)) {
                Some(before) => *before = signed_in,
                None => self.passing.push(signed_in),
            }
        }
    }

    /// Which path it is, and what stands in the place of its names.
    fn recognise(&self, path: &str) -> Option<(String, Places)> {
        let parts: Vec<_> = path.split('/').collect();
        let operation = self.api.operations.iter().find(|operation| {
            let pattern: Vec<_> = operation.path.split('/').collect();
            pattern.len() == parts.len()
                && pattern.iter().zip(&parts).all(|(name, part)| name.starts_with('{') || name == part)
        })?;
        let pairs = operation.path.split('/').zip(parts);
        let places = pairs.filter_map(|(name, part)| {
            Some((name.strip_prefix('{')?.strip_suffix('}')?.to_owned(), part.to_owned()))
        });
        Some((operation.path.clone(), places.collect()))
    }
}
