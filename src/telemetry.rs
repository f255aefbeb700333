//! Log lines: the back end of the `log` facade, and the request id on every line.
//!
//! One record is one line, whatever its message and values contain, so that nobody can forge a
//! line or drive a terminal by what they send. Nobody but this module knows the back end. What is
//! worth logging, and that secrets stay out of it, is for the callers to know.

use std::error::Error;
use std::fmt;
use std::io::Write;
use std::sync::Arc;

use log::{LevelFilter, SetLoggerError};

use crate::config::{LogConfig, LogFormat};

mod line;

tokio::task_local! {
    static REQUEST_ID: Arc<str>;
}

/// Installs the back end, which writes to standard error. Fails if there is one already.
pub fn init(config: &LogConfig) -> Result<(), SetLoggerError> {
    builder(config).try_init()
}

fn builder(config: &LogConfig) -> env_logger::Builder {
    let format = match config.format {
        LogFormat::Text => line::text,
        LogFormat::Json => line::json,
    };
    let mut builder = env_logger::Builder::new();
    // Anybody who sends garbage would make it log an error. A filter that names it wins.
    builder.filter_module("actix_http", LevelFilter::Off);
    builder.parse_filters(&config.filter).format(move |out, record| {
        let time = out.timestamp_millis();
        let line = REQUEST_ID
            .try_with(|id| format(&time, record, Some(id)))
            .unwrap_or_else(|_| format(&time, record, None));
        out.write_all(line.as_bytes())
    });
    builder
}

/// Runs a future under a request id, which every line logged within it then carries. Spawned
/// tasks do not inherit it: see [`in_this_request`].
pub fn with_request_id<F: Future>(id: Arc<str>, future: F) -> impl Future<Output = F::Output> {
    REQUEST_ID.scope(id, future)
}

/// Wraps a future that is to be spawned, so that its lines carry the id of the present request.
pub fn in_this_request<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let id = current_request_id();
    async move {
        match id {
            Some(id) => with_request_id(id, future).await,
            None => future.await,
        }
    }
}

/// The id of the request that is being served, if one is.
pub fn current_request_id() -> Option<Arc<str>> {
    REQUEST_ID.try_with(Arc::clone).ok()
}

/// Displays an error and everything that caused it on one line, joined by `: `. A cause that the
/// text of its parent already contains is not said twice.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parent = on_one_line(&self.0.to_string());
        f.write_str(&parent)?;
        let mut cause = self.0.source();
        while let Some(err) = cause {
            let text = on_one_line(&err.to_string());
            if !parent.contains(&text) {
                write!(f, ": {text}")?;
            }
            parent = text;
            cause = err.source();
        }
        Ok(())
    }
}

/// The words of a text of several lines, with blanks for what parted the lines.
fn on_one_line(text: &str) -> String {
    let parts = text.split(char::is_control).map(str::trim).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
