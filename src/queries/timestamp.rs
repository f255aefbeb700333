//! Times in answers, as RFC 3339 has them. As chrono serialises them by itself, with what it writes, but in one piece: it
//! hands out character by character, and of each `serde_json` sees whether it has to be escaped.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize as _, Serializer};

/// For `#[serde(serialize_with)]`.
pub(super) fn serialize<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(at))
}

/// The same for what may not have happened.
pub(super) fn serialize_option<S: Serializer>(
    at: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    at.as_ref().map(text).serialize(serializer)
}

fn text(at: &DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_as_chrono_serialises_it() {
        let at = |nanoseconds| DateTime::from_timestamp(1_795_920_681, nanoseconds).unwrap();
        for at in
            [at(0), at(5_000_000), at(123_456_000), at(1), DateTime::UNIX_EPOCH, DateTime::<Utc>::MAX_UTC]
        {
            let mut json = serde_json::Serializer::new(Vec::new());
            serialize(&at, &mut json).unwrap();
            assert_eq!(json.into_inner(), serde_json::to_vec(&at).unwrap());
        }
        let mut json = serde_json::Serializer::new(Vec::new());
        serialize_option(&None, &mut json).unwrap();
        assert_eq!(json.into_inner(), b"null");
    }
}
