//! The process environment, with the `.env` of the working directory beneath it.
//!
//! Never changes the environment: other threads may be reading it. Never repeats a line of the
//! file in a fault, because it may hold a secret.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};
use std::rc::Rc;

use super::{Fault, variables};

const FILE: &str = ".env";

/// All variables, and what is wrong with their sources. Real variables win over the file.
pub(super) fn environment() -> (HashMap<String, String>, Vec<Fault>) {
    let (mut values, mut faults) = match std::fs::read(FILE) {
        Ok(bytes) => parse(&bytes),
        Err(err) if err.kind() == ErrorKind::NotFound => Default::default(),
        Err(err) => {
            (HashMap::new(), vec![fault(FILE, format!("cannot be read ({err})"), "a readable file, or none")])
        }
    };
    for (name, value) in std::env::vars_os() {
        // A name that is not UTF-8 cannot be one of ours.
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => drop(values.insert(name, value)),
            Err(_) => {
                if let Some(ours) = variables::all().find(|variable| variable.name == name) {
                    faults.push(fault(ours.name, "its value is not UTF-8", "UTF-8 text"));
                }
            }
        }
    }
    (values, faults)
}

/// Reads the contents of a `.env`. Of a name that is set twice, the first counts.
pub(super) fn parse(bytes: &[u8]) -> (HashMap<String, String>, Vec<Fault>) {
    let mut values = HashMap::new();
    let mut faults = Vec::new();
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    if std::str::from_utf8(bytes).is_err() {
        faults.push(fault(FILE, "is not UTF-8", "lines of NAME=value in UTF-8"));
        return (values, faults);
    }
    let number = Rc::new(Cell::new(0));
    let lines = Lines { rest: bytes, at_start: true, number: Rc::clone(&number) };
    for item in dotenvy::from_read_iter(lines) {
        match item {
            Ok((name, value)) => drop(values.entry(name).or_insert(value)),
            Err(dotenvy::Error::LineParse(refused, _)) => {
                // A value in quotes may have run over many lines; say where it began.
                let lines_more = refused.trim_end().matches('\n').count();
                let problem =
                    format!("line {} cannot be understood", number.get().saturating_sub(lines_more));
                let expected = "NAME=value, in single quotes if the value has spaces, quotes, # or $";
                faults.push(fault(FILE, problem, expected));
            }
            Err(err) => {
                faults.push(fault(FILE, format!("cannot be read ({err})"), "lines of NAME=value"));
                break;
            }
        }
    }
    (values, faults)
}

/// Hands out one line at a time and counts them, because the parser does not tell line numbers.
struct Lines<'a> {
    rest: &'a [u8],
    at_start: bool,
    number: Rc<Cell<usize>>,
}

impl Read for Lines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut line = self.rest.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        if self.at_start {
            self.number.set(self.number.get() + usize::from(!line.is_empty()));
        }
        let length = line.read(buffer)?;
        self.at_start = line.is_empty();
        self.rest = self.rest.get(length..).unwrap_or_default();
        Ok(length)
    }
}

fn fault(subject: &'static str, problem: impl Into<String>, expected: impl Into<String>) -> Fault {
    Fault { subject: Cow::Borrowed(subject), problem: problem.into(), expected: expected.into() }
}
