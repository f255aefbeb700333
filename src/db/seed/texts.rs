//! Names and texts that look like something.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

/// A person's name.
pub(super) fn person(rng: &mut StdRng) -> String {
    format!("{} {}", pick(FIRST_NAMES, rng), pick(LAST_NAMES, rng))
}

/// A workspace's name.
pub(super) fn team(rng: &mut StdRng) -> String {
    format!("{} {}", pick(ADJECTIVES, rng), pick(TEAMS, rng))
}

/// A document's title.
pub(super) fn title(rng: &mut StdRng) -> String {
    format!("{} {} {}", pick(ADJECTIVES, rng), pick(WORDS, rng), pick(WORDS, rng))
}

/// What a channel is about, in a word.
pub(super) fn word(rng: &mut StdRng) -> &'static str {
    pick(WORDS, rng)
}

/// Sentences, of at least so many bytes.
pub(super) fn prose(bytes: usize, rng: &mut StdRng) -> String {
    let mut text = String::with_capacity(bytes + 150);
    while text.len() < bytes {
        sentence(&mut text, rng.random_range(6..16), rng);
        text.push_str(if rng.random_ratio(1, 5) { ".\n\n" } else { ". " });
    }
    text
}

/// A line or two, as people write to each other.
pub(super) fn remark(rng: &mut StdRng) -> String {
    let mut text = String::with_capacity(120);
    sentence(&mut text, rng.random_range(2..8), rng);
    text.push(if rng.random_ratio(1, 4) { '?' } else { '.' });
    text
}

fn sentence(text: &mut String, words: usize, rng: &mut StdRng) {
    for index in 0..words {
        if index > 0 {
            text.push(' ');
        }
        text.push_str(pick(WORDS, rng));
    }
}

fn pick(words: &[&'static str], rng: &mut StdRng) -> &'static str {
    words.choose(rng).copied().unwrap_or_default()
}

const FIRST_NAMES: &[&str] = &[
    "Ada", "Amara", "Anton", "Bela", "Carmen", "Chen", "Dana", "Elif", "Emil", "Fatima", "Grace", "Hana",
    "Ines", "Ivan", "Jonas", "Kenji", "Leila", "Lena", "Malik", "Mei", "Nadia", "Noah", "Olga", "Omar",
    "Pia", "Ravi", "Rosa", "Sana", "Tariq", "Uma", "Vera", "Yusuf",
];
const LAST_NAMES: &[&str] = &[
    "Adeyemi", "Bauer", "Costa", "Demir", "Eriksen", "Fischer", "Garcia", "Haddad", "Ito", "Jansen", "Kaur",
    "Lindgren", "Moreau", "Novak", "Okafor", "Petrov", "Quispe", "Rossi", "Silva", "Tanaka", "Ueda", "Varga",
    "Weber", "Zhang",
];
const ADJECTIVES: &[&str] =
    &["Amber", "Brisk", "Calm", "Deep", "Early", "Fair", "Green", "High", "Keen", "Late", "North"];
const TEAMS: &[&str] =
    &["Design", "Editors", "Finance", "Growth", "Hardware", "Infra", "Labs", "Mobile", "Research", "Sales"];
#[rustfmt::skip]
const WORDS: &[&str] = &[
    "agenda", "answer", "archive", "balance", "branch", "budget", "change", "choice", "client", "contract",
    "cycle", "deadline", "design", "draft", "effort", "estimate", "feature", "forecast", "goal", "handover",
    "idea", "index", "journal", "launch", "ledger", "margin", "meeting", "method", "milestone", "network",
    "outline", "owner", "pattern", "plan", "policy", "process", "project", "quality", "question", "release",
    "report", "review", "risk", "schedule", "scope", "service", "signal", "storage", "strategy", "survey",
    "task", "team", "theme", "ticket", "travel", "update", "value", "vendor", "version", "workshop",
];
