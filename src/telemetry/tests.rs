use std::time::Instant;

use serde_json::{Value, json};

use super::{lines::tests::Output, *};

const TIME: &str = "2026-01-31T12:00:00.000Z";

type Pairs<'a> = [(&'a str, log::kv::Value<'a>)];

fn with_record<T>(message: fmt::Arguments<'_>, pairs: &Pairs<'_>, use_it: impl Fn(&Record<'_>) -> T) -> T {
    let record = Record::builder()
        .level(Level::Info)
        .target("lockstep::server")
        .args(message)
        .key_values(&pairs)
        .build();
    use_it(&record)
}

fn text(message: &str, pairs: &Pairs<'_>, id: Option<&str>) -> String {
    with_record(format_args!("{message}"), pairs, |record| line::text(&TIME, record, id))
}

fn json(message: &str, pairs: &Pairs<'_>, id: Option<&str>) -> Value {
    let line = with_record(format_args!("{message}"), pairs, |record| line::json(&TIME, record, id));
    assert!(line.ends_with("}\n") && !line.trim_end().contains(|c: char| c.is_control() || c == '\u{2028}'));
    serde_json::from_str(&line).unwrap()
}

#[test]
fn a_text_line_has_time_level_target_id_message_and_values() {
    let pairs = [("status", 200.into()), ("route", "/v1/users".into()), ("cache.level", "l 2".into())];
    assert_eq!(
        text("request", &pairs, Some("req-1")),
        format!(
            "{TIME} INFO  lockstep::server request_id=req-1 request status=200 route=/v1/users cache.level=\"l 2\"\n"
        )
    );
    assert_eq!(text("started", &[], None), format!("{TIME} INFO  lockstep::server started\n"));
}

#[test]
fn nothing_breaks_a_text_line() {
    let evil = "a\nb\r\u{1b}[31m\u{2028}\"c\\";
    let line = text(evil, &[(evil, evil.into()), ("empty", "".into()), ("eq", "a=b".into())], Some("x y"));
    assert_eq!(
        line,
        format!(
            r#"{TIME} INFO  lockstep::server request_id="x y" a\nb\r\u{{1b}}[31m\u{{2028}}"c\ {word}={word} empty="" eq="a=b""#,
            word = r#""a\nb\r\u{1b}[31m\u{2028}\"c\\""#
        ) + "\n"
    );
}

#[test]
fn a_json_line_has_the_values_as_fields() {
    let pairs = [
        ("status", 200.into()),
        ("ratio", 0.5.into()),
        ("endless", f64::INFINITY.into()),
        ("hit", true.into()),
        ("none", log::kv::Value::null()),
        ("route", "/v1/\"x\"".into()),
        ("message", "not mine".into()),
    ];
    assert_eq!(
        json("request", &pairs, Some("req-1")),
        json!({
            "ts": TIME, "level": "INFO", "target": "lockstep::server", "request_id": "req-1",
            "message": "request", "status": 200, "ratio": 0.5, "endless": "inf", "hit": true,
            "none": null, "route": "/v1/\"x\"", "kv.message": "not mine",
        })
    );
}

#[test]
fn nothing_breaks_a_json_line() {
    let evil = "a\nb\r\t\u{1b}\u{85}\u{2028}\"c\\\0ü😀";
    let object = json(evil, &[(evil, evil.into())], Some(evil));
    assert_eq!(object["message"], evil);
    assert_eq!(object["request_id"], evil);
    assert_eq!(object[evil], evil);
}

#[test]
fn the_request_id_is_not_written_twice() {
    let pairs = [("request_id", "req-1".into())];
    assert_eq!(text("m", &pairs, Some("req-1")).matches("request_id").count(), 1);
    assert_eq!(text("m", &pairs, None).matches("request_id").count(), 1);
    assert_eq!(json("m", &pairs, None)["request_id"], "req-1");
}

#[test]
fn an_error_value_shows_its_chain() {
    let err = Outer { source: io::Error::other("disk\nfull") };
    let pairs = [("error", log::kv::Value::from_dyn_error(&err))];
    assert_eq!(json("m", &pairs, None)["error"], "cannot save: disk full");
    assert!(text("m", &pairs, None).ends_with(" m error=\"cannot save: disk full\"\n"));
}

#[derive(Debug, thiserror::Error)]
#[error("cannot save")]
struct Outer {
    source: io::Error,
}

#[derive(Debug, thiserror::Error)]
#[error("not saved ({0})")]
struct Repeats(#[source] Outer);

#[test]
fn a_chain_names_every_cause_once() {
    let outer = Outer { source: io::Error::other("disk full") };
    assert_eq!(Chain(&outer).to_string(), "cannot save: disk full");
    assert_eq!(Chain(&Repeats(outer)).to_string(), "not saved (cannot save): disk full");
    assert_eq!(Chain(&io::Error::other("alone")).to_string(), "alone");
}

#[tokio::test]
async fn the_request_id_is_known_within_its_future_only() {
    assert_eq!(current_request_id(), None);
    let seen = with_request_id("req-1".into(), async {
        tokio::task::yield_now().await;
        let inner = with_request_id("req-2".into(), async { current_request_id() }).await;
        (current_request_id(), inner)
    });
    assert_eq!(seen.await, (Some("req-1".into()), Some("req-2".into())));
    assert_eq!(current_request_id(), None);
}

#[tokio::test]
async fn the_back_end_filters_and_adds_the_request_id() {
    let output = Output::default();
    let config = LogConfig { format: LogFormat::Json, filter: "warn".to_owned() };
    let logger = Logger::new(&config, Lines::to(output.clone(), |_| ()).unwrap());
    with_request_id("req-1".into(), async {
        for level in [Level::Info, Level::Warn] {
            logger.log(&Record::builder().level(level).args(format_args!("said")).build());
        }
    })
    .await;
    logger.flush();
    let written = output.text();
    assert_eq!(written.lines().count(), 1);
    let line: Value = serde_json::from_str(&written).unwrap();
    assert_eq!((&line["level"], &line["request_id"]), (&json!("WARN"), &json!("req-1")));
    let time = line["ts"].as_str().unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok() && time.len() == TIME.len(), "{time}");
}

#[test]
fn a_warning_does_not_wait_and_stands_behind_what_was_logged_before() {
    let output = Output::default();
    let config = LogConfig { format: LogFormat::Text, filter: "info".to_owned() };
    let logger = Logger::new(&config, Lines::to(output.clone(), |_| ()).unwrap());
    let say = |level, text: String| {
        logger.log(&Record::builder().level(level).args(format_args!("{text}")).build());
    };
    // A machine that is busy may hold it up, though hardly each time.
    let at_once = (0..20).any(|number| {
        let begun = Instant::now();
        say(Level::Info, format!("first {number}"));
        say(Level::Warn, format!("second {number}"));
        output.wait_for(&format!("second {number}\n"));
        begun.elapsed() < lines::MOMENT / 2
    });
    assert!(at_once);
    let written = output.text();
    assert!(written.find("first 0") < written.find("second 0"), "{written}");
}

#[test]
fn what_was_logged_before_a_panic_is_written_before_it() {
    let output = Output::default();
    let mut lines = Lines::to(output.clone(), |_| ()).unwrap();
    flush_on_panic(lines.clone());
    lines.write_all(b"the last line\n").unwrap();
    panic::catch_unwind(|| panic!("on purpose")).unwrap_err();
    assert_eq!(output.text(), "the last line\n");
}
