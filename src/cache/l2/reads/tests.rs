use super::*;

fn answers(text: &'static str, count: usize) -> Option<Vec<Answer>> {
    separate(Bytes::from_static(text.as_bytes()), count)
}

#[test]
fn answers_are_told_apart_by_their_lengths() {
    assert_eq!(answers("3\nabc", 1), Some(vec!["abc".into()]));
    assert_eq!(answers("2 0 1\nabc", 3), Some(vec!["ab".into(), "".into(), "c".into()]));
    for (text, count) in [
        ("", 1),
        ("3", 1),
        ("3\nab", 1),
        ("3\nabcd", 1),
        ("3 1\nabcd", 1),
        ("4\nabcd", 2),
        ("x\nabc", 1),
        ("-1\nabc", 1),
        ("99999999999999999999999999\nabc", 1),
    ] {
        assert_eq!(answers(text, count), None, "{text:?}");
    }
}

#[test]
fn an_answer_says_what_there_is() {
    let read = |text: &'static str| understand(Bytes::from_static(text.as_bytes()));
    let Some(L2Read::Hit { sequence: 7, ttl, envelope, lock: Lock::Acquired }) =
        read("HIT 7 1 1500\nan\nentry").unwrap()
    else {
        panic!("no hit");
    };
    assert_eq!((ttl, &*envelope), (Duration::from_millis(1500), &b"an\nentry"[..]));
    let miss = |text| match read(text).unwrap() {
        Some(L2Read::Miss { sequence: 7, left, lock }) => (left, lock),
        _ => panic!("no miss"),
    };
    assert!(matches!(miss("MISS 7 0 0\n"), (Left::Nothing, Lock::NotAsked)));
    assert!(matches!(miss("MISS 7 2 0\nstale"), (Left::Stale, Lock::HeldByAnother)));
    let (Left::Expired { envelope, kept }, Lock::Acquired) = miss("MISS 7 1 20\nan entry") else {
        panic!("nothing is left");
    };
    assert_eq!((kept, &*envelope), (Duration::from_millis(20), &b"an entry"[..]));
    assert!(read("EPOCH 0 0 0\n").unwrap().is_none());
}

#[test]
fn what_went_wrong_with_a_read_is_told_as_redis_has_told_it() {
    let kind = |text: &'static str| understand(Bytes::from_static(text.as_bytes())).err().unwrap().kind();
    let refused = "ERROR 0 0 0\nREADONLY You can't write against a read only replica.";
    assert_eq!(kind(refused), ErrorKind::Server(ServerErrorKind::ReadOnly));
    let full = "ERROR 0 0 0\nOOM command not allowed when used memory > 'maxmemory'.";
    assert_eq!(kind(full), ErrorKind::Server(ServerErrorKind::ResponseError));
    for text in ["", "HIT 7 1 1500", "HIT 7 1\nentry", "HIT 7 one 1500\nentry", "OTHER 0 0 0\n"] {
        assert_eq!(kind(text), ErrorKind::UnexpectedReturnType, "{text:?}");
    }
}
