//! What is written and read.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};

/// A workspace or a document whose name or title is a number; see [`super::history`].
#[derive(Debug)]
pub struct Register {
    pub id: String,
    pub kind: Kind,
    /// The workspace it is in, or that it is.
    pub workspace: String,
    /// Attempts to write it.
    numbers: AtomicU64,
    /// The newest acknowledged version, and the token that came with it.
    newest: Mutex<(i64, Option<String>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Workspace,
    Document,
    /// A document that only other programs write: at first there is none.
    Copied,
}

impl Register {
    pub fn new(id: String, kind: Kind, workspace: String) -> Self {
        Self { id, kind, workspace, numbers: AtomicU64::new(1), newest: Mutex::default() }
    }

    /// The number of another attempt.
    pub fn attempt(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Its table, and the column that holds the number.
    pub fn column(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Workspace => ("workspaces", "name"),
            Kind::Document | Kind::Copied => ("documents", "title"),
        }
    }

    /// A patch that writes a number.
    pub fn patch(&self, number: u64) -> Value {
        json!({ self.column().1: number.to_string() })
    }

    pub fn path(&self) -> String {
        match self.kind {
            Kind::Workspace => format!("/v1/workspaces/{}", self.workspace),
            Kind::Document | Kind::Copied => {
                format!("/v1/workspaces/{}/documents/{}", self.workspace, self.id)
            }
        }
    }

    /// The list that it is in.
    pub fn list(&self) -> String {
        match self.kind {
            Kind::Workspace => "/v1/workspaces?limit=100".to_owned(),
            Kind::Document | Kind::Copied => format!("/v1/workspaces/{}/documents?limit=100", self.workspace),
        }
    }

    /// Version and number in its view.
    pub fn seen_in(&self, view: &Value) -> Option<(i64, u64)> {
        Some((view["version"].as_i64()?, view[self.column().1].as_str()?.parse().ok()?))
    }

    /// Version and number in a list.
    pub fn seen_among(&self, list: &Value) -> Option<(i64, u64)> {
        self.seen_in(list["data"].as_array()?.iter().find(|view| view["id"] == self.id)?)
    }

    /// A write was acknowledged.
    pub fn acknowledged(&self, version: i64, token: &str) {
        let mut newest = self.newest.lock().unwrap();
        if version > newest.0 {
            *newest = (version, Some(token.to_owned()));
        }
    }

    /// The newest version that was acknowledged with a token, and that token.
    pub fn token(&self) -> Option<(i64, String)> {
        let (version, token) = self.newest.lock().unwrap().clone();
        Some((version, token?))
    }
}
