//! Log lines: the back end of the `log` facade, and the request id on every line.
//!
//! One record is one line, whatever its message and values contain, so that nobody can forge a
//! line or drive a terminal by what they send. Nobody but this module knows the back end. What is
//! worth logging, and that secrets stay out of it, is for the callers to know.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::panic;
use std::sync::Arc;
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::config::{LogConfig, LogFormat};

mod line;
mod lines;

use lines::Lines;

tokio::task_local! {
    static REQUEST_ID: Arc<str>;
}

/// Installs the back end, which writes to standard error. Fails if there is one already.
///
/// Lines wait for each other for a moment: [`flush`] writes what is left when the process ends, and a panic does so too.
pub fn init(config: &LogConfig) -> io::Result<()> {
    let lines = Lines::to(io::stderr(), |count| {
        log::warn!(lines = count; "log lines were dropped, since nobody read them");
    })?;
    let logger = Logger::new(config, lines.clone());
    log::set_max_level(logger.inner.filter());
    log::set_boxed_logger(Box::new(logger)).map_err(io::Error::other)?;
    flush_on_panic(lines);
    Ok(())
}

/// Writes what is waiting, before the process ends or writes to standard error by itself.
pub fn flush() {
    log::logger().flush();
}

/// So that the last lines stand before the panic's own words, which are not among them.
fn flush_on_panic(lines: Lines) {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        lines.flush();
        usual(info);
    }));
}

/// Chooses records, makes lines of them, and sees to it that what is worth a warning does not wait.
struct Logger {
    inner: env_logger::Logger,
    lines: Lines,
}

impl Logger {
    fn new(config: &LogConfig, lines: Lines) -> Self {
        let format = match config.format {
            LogFormat::Text => line::text,
            LogFormat::Json => line::json,
        };
        let mut builder = env_logger::Builder::new();
        // Anybody who sends garbage would make it log an error. A filter that names it wins.
        builder.filter_module("actix_http", LevelFilter::Off);
        builder.parse_filters(&config.filter).target(env_logger::Target::Pipe(Box::new(lines.clone())));
        builder.format(move |out, record| {
            let time = humantime::format_rfc3339_millis(SystemTime::now());
            let line = REQUEST_ID
                .try_with(|id| format(&time, record, Some(id)))
                .unwrap_or_else(|_| format(&time, record, None));
            out.write_all(line.as_bytes())
        });
        Self { inner: builder.build(), lines }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.inner.log(record);
        if record.level() <= Level::Warn {
            self.lines.hurry();
        }
    }

    fn flush(&self) {
        self.lines.flush();
    }
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
