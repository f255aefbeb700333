//! `If-Match`: a write that is to be done only if the thing is still what its writer has seen.
//!
//! Only the version in an entity tag counts: that an author has changed his name since must not undo an edit. And a
//! weak tag counts like a strong one, since what compresses bodies on the way makes them weak.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header::IF_MATCH};

use crate::error::AppError;

/// The header, or that there is none. It is judged only after it is known that the caller may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfMatch(Option<Vec<String>>);

impl IfMatch {
    /// Whether the thing may be written at this version.
    ///
    /// # Errors
    /// [`AppError::PreconditionRequired`] if there is no header.
    pub fn allows(&self, version: i64) -> Result<bool, AppError> {
        let tags = self.0.as_ref().ok_or(AppError::PreconditionRequired)?;
        Ok(tags.iter().any(|tag| tag == "*" || version_of(tag) == Some(version)))
    }
}

impl FromRequest for IfMatch {
    type Error = AppError;
    type Future = Ready<Result<Self, AppError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let lines: Vec<_> =
            request.headers().get_all(IF_MATCH).map(|line| line.to_str().unwrap_or_default()).collect();
        let tags = lines.iter().flat_map(|line| line.split(',')).map(|tag| tag.trim().to_owned()).collect();
        ready(Ok(Self((!lines.is_empty()).then_some(tags))))
    }
}

/// The version in one of our entity tags: `"41-9f2c01d7a1b2"`.
fn version_of(tag: &str) -> Option<i64> {
    let opaque = tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"')?.strip_suffix('"')?;
    opaque.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(tags: &[&str]) -> IfMatch {
        IfMatch(Some(tags.iter().map(|tag| (*tag).to_owned()).collect()))
    }

    #[test]
    fn the_version_decides_whatever_the_rest_of_the_tag_says() {
        for tag in ["\"41-aaaaaaaaaaaa\"", "\"41-bbbbbbbbbbbb\"", "W/\"41-aaaaaaaaaaaa\"", "*"] {
            assert!(sent(&[tag]).allows(41).unwrap(), "{tag}");
            assert!(sent(&["\"1-x\"", tag]).allows(41).unwrap(), "{tag}");
        }
        for tag in ["\"40-aaaaaaaaaaaa\"", "41", "\"41\"", "41-a", "", "\"-41-a\""] {
            assert!(!sent(&[tag]).allows(41).unwrap(), "{tag}");
        }
    }

    #[test]
    fn without_the_header_nothing_is_written() {
        assert!(matches!(IfMatch(None).allows(1), Err(AppError::PreconditionRequired)));
    }
}
