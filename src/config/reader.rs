//! Reads variables one by one, and remembers every fault and what each variable came to.
//!
//! Never lets a secret out: what a fault or a [`Setting`] shows has passed [`shown`].

use std::borrow::Cow;

use super::parse::Parsed;
use super::variables::{Default, Privacy, Variable};
use super::{Fault, Setting};

/// How much of a wrong value a fault repeats.
const SHOWN_CHARS: usize = 60;

/// A source of variables with a memory.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    faults: Vec<Fault>,
    settings: Vec<Setting>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>, faults: Vec<Fault>) -> Self {
        Self { lookup, faults, settings: Vec::new() }
    }

    /// The value of a variable, or of its default. `None` means that a fault has been noted, or
    /// that the variable is unset and has no default.
    pub(super) fn read<T>(
        &mut self,
        variable: &'static Variable,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Option<T> {
        let given = self.given(variable);
        let text = match (&given, variable.default) {
            (Some(text), _) => text.as_str(),
            (None, Default::Value(default)) => default,
            (None, Default::Unset(meaning)) => {
                self.settle(variable, format!("(unset: {meaning})"), true);
                return None;
            }
        };
        match parse(text) {
            Ok(value) => {
                self.settle(variable, shown(variable, text).into_owned(), given.is_none());
                Some(value)
            }
            Err(refused) => {
                let subject = match variable.privacy {
                    Privacy::Public => quoted(text),
                    Privacy::Url | Privacy::Secret => "its value".to_owned(),
                };
                let problem = format!("{subject} {}", refused.problem);
                self.fault(variable, problem, refused.expected);
                None
            }
        }
    }

    /// Like [`Reader::read`], for a variable without a default; the outer `None` is a fault.
    pub(super) fn read_optional<T>(
        &mut self,
        variable: &'static Variable,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Option<Option<T>> {
        let faults = self.faults.len();
        let value = self.read(variable, parse);
        (self.faults.len() == faults).then_some(value)
    }

    /// Whether the variable has a value, right or wrong.
    pub(super) fn is_set(&self, variable: &Variable) -> bool {
        self.given(variable).is_some()
    }

    /// Notes what an unset variable came to.
    pub(super) fn derived(&mut self, variable: &'static Variable, value: &str) {
        self.settle(variable, value.to_owned(), true);
    }

    /// Notes a fault that only shows when variables are seen together.
    pub(super) fn fault(
        &mut self,
        variable: &'static Variable,
        problem: impl Into<String>,
        expected: impl Into<String>,
    ) {
        self.faults.push(Fault {
            subject: Cow::Borrowed(variable.name),
            problem: problem.into(),
            expected: expected.into(),
        });
    }

    /// What the variables came to, and what is wrong with them.
    pub(super) fn finish(self) -> (Vec<Setting>, Vec<Fault>) {
        (self.settings, self.faults)
    }

    /// The value in the environment. Nothing but blanks is nothing.
    fn given(&self, variable: &Variable) -> Option<String> {
        let text = (self.lookup)(variable.name)?;
        let trimmed = text.trim();
        (!trimmed.is_empty()).then(|| trimmed.to_owned())
    }

    fn settle(&mut self, variable: &'static Variable, value: String, is_default: bool) {
        let setting = Setting { name: variable.name, value, is_default };
        match self.settings.iter_mut().find(|known| known.name == variable.name) {
            Some(known) => *known = setting,
            None => self.settings.push(setting),
        }
    }
}

/// The value, quoted, on one line and not too long.
pub(super) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// The value as it may be shown.
fn shown<'a>(variable: &Variable, text: &'a str) -> Cow<'a, str> {
    match variable.privacy {
        Privacy::Public if text.contains(char::is_control) => Cow::Owned(quoted(text)),
        Privacy::Public => Cow::Borrowed(text),
        Privacy::Url => Cow::Owned(without_credentials(text)),
        Privacy::Secret => Cow::Borrowed(HIDDEN),
    }
}

/// Stands for what is not shown.
pub(super) const HIDDEN: &str = "***";

/// A URL without its password. Drivers accept passwords that a strict URL parser refuses (`/`
/// and `@` unescaped), so everything up to the last `@` counts as credentials.
pub(super) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return HIDDEN.to_owned();
    };
    let (credentials, place) = match rest.rsplit_once('@') {
        Some((credentials, place)) => (Some(credentials), place),
        None => (None, rest),
    };
    let mut safe = format!("{scheme}://");
    if let Some(credentials) = credentials {
        if let Some((user, _)) = credentials.split_once(':') {
            safe.push_str(user);
            safe.push(':');
        }
        safe.push_str(HIDDEN);
        safe.push('@');
    }
    let (place, query) = place.split_once('?').map_or((place, None), |(p, q)| (p, Some(q)));
    safe.push_str(place);
    for (index, parameter) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        safe.push(if index == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if name.to_ascii_lowercase().contains("pass") => {
                safe.push_str(&format!("{name}={HIDDEN}"));
            }
            _ => safe.push_str(parameter),
        }
    }
    safe
}
