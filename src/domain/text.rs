//! Texts that have been checked once and need no further check.
//!
//! Each type is made by its `parse` only. An error is a short sentence for the consumer of the
//! API, to be put behind a field's name; it never repeats the input. No text contains a NUL,
//! which PostgreSQL cannot store.

use std::fmt;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use url::Url;

#[cfg(test)]
mod tests;

/// Why a text is refused: a sentence that follows the name of the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(String);

impl TextError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Declares text types that hold what their check lets pass.
macro_rules! texts {
    ($($(#[$doc:meta])+ $name:ident: $check:expr;)+) => {$(
        $(#[$doc])+
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks a text and takes it over.
            pub fn parse(text: &str) -> Result<Self, TextError> {
                let check: fn(&str) -> Result<String, TextError> = $check;
                check(text).map(Self)
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

texts! {
    /// An e-mail address, trimmed and in lower case: two spellings of it are one account.
    Email: email;
    /// A user's name or display name: one line of 1 to 100 characters.
    PersonName: |text| line(text, 1, 100);
    /// A workspace's name: one line of 1 to 100 characters.
    WorkspaceName: |text| line(text, 1, 100);
    /// What a workspace has in its address: 2 to 63 of `a-z 0-9 -`, no hyphen at either end.
    Slug: slug;
    /// Up to 2000 characters, line breaks among them, or nothing.
    Description: |text| lines(text, DESCRIPTION_MAX);
    /// A document's title: one line of 1 to 200 characters.
    DocumentTitle: |text| line(text, 1, 200);
    /// Up to 100,000 characters, line breaks among them, or nothing.
    DocumentContent: |text| lines(text, CONTENT_MAX);
    /// A channel's name: one line of 1 to 80 characters.
    ChannelName: |text| line(text, 1, 80);
    /// What a channel is about: one line of up to 250 characters, or nothing.
    ChannelTopic: |text| line(text, 0, 250);
    /// A message: 1 to 10,000 characters that are not all blank, line breaks among them.
    MessageContent: message;
    /// What a client calls a message, so that it can send it again: 1 to 255 printable ASCII characters.
    ClientMessageId: client_message_id;
    /// The absolute `http` or `https` URL of a picture.
    AvatarUrl: avatar_url;
    /// The name of a time zone, such as `Europe/Berlin`. Known by its looks only.
    Timezone: timezone;
    /// What a user is up to: one line of up to 140 characters, or nothing.
    StatusText: |text| line(text, 0, 140);
}

const DESCRIPTION_MAX: usize = 2000;
const CONTENT_MAX: usize = 100_000;
const MESSAGE_MAX: usize = 10_000;
const CLIENT_MESSAGE_ID_MAX: usize = 255;
const EMAIL_MAX: usize = 254;
const URL_MAX: usize = 2048;
const TIMEZONE_MAX: usize = 64;
const SLUG_MIN: usize = 2;
/// The length of a DNS label, so that a slug can become one.
const SLUG_MAX: usize = 63;
/// Stands in when a name has nothing that a slug could keep.
const SLUG_FALLBACK: &str = "workspace";

/// Whether a character could end a line or drive a terminal.
fn breaks_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

fn line(text: &str, least: usize, most: usize) -> Result<String, TextError> {
    let text = text.trim();
    if !(least..=most).contains(&text.chars().count()) {
        return Err(TextError::new(if least == 0 {
            format!("must be at most {most} characters")
        } else {
            format!("must be {least} to {most} characters")
        }));
    }
    if text.contains(breaks_line) {
        return Err(TextError::new("must not contain line breaks or control characters"));
    }
    Ok(text.to_owned())
}

fn lines(text: &str, most: usize) -> Result<String, TextError> {
    if text.chars().count() > most {
        return Err(TextError::new(format!("must be at most {most} characters")));
    }
    if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(TextError::new("must not contain control characters other than line breaks and tabs"));
    }
    Ok(text.to_owned())
}

fn message(text: &str) -> Result<String, TextError> {
    if text.trim().is_empty() {
        return Err(TextError::new("must not be blank"));
    }
    lines(text, MESSAGE_MAX)
}

fn client_message_id(text: &str) -> Result<String, TextError> {
    if (1..=CLIENT_MESSAGE_ID_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(TextError::new(format!("must be 1 to {CLIENT_MESSAGE_ID_MAX} printable ASCII characters")))
}

/// A pragmatic check: only sending a message proves that an address exists. ASCII only, because
/// lower-casing and look-alikes make one mailbox out of two beyond it (`K` the Kelvin sign).
fn email(text: &str) -> Result<String, TextError> {
    let text = text.trim();
    if text.len() > EMAIL_MAX {
        return Err(TextError::new(format!("must be at most {EMAIL_MAX} characters")));
    }
    let local_ok = |local: &str| {
        (1..=64).contains(&local.len())
            && local.split('.').all(|atom| !atom.is_empty())
            && local.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c))
    };
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match text.rsplit_once('@') {
        Some((local, domain))
            if local_ok(local) && domain.contains('.') && domain.split('.').all(label_ok) =>
        {
            Ok(text.to_ascii_lowercase())
        }
        _ => Err(TextError::new("must be an e-mail address such as name@example.com")),
    }
}

fn slug(text: &str) -> Result<String, TextError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !(SLUG_MIN..=SLUG_MAX).contains(&text.len())
        || !text.chars().all(allowed)
        || text.starts_with('-')
        || text.ends_with('-')
    {
        return Err(TextError::new(format!(
            "must be {SLUG_MIN} to {SLUG_MAX} lower-case letters a-z, digits and hyphens, without a hyphen at either end"
        )));
    }
    Ok(text.to_owned())
}

impl Slug {
    /// A slug made from a name: `Zürich & Büro` becomes `zurich-buro`. Somebody may have it
    /// already; see [`Slug::with_suffix`].
    pub fn from_name(name: &WorkspaceName) -> Self {
        // Decomposed, a letter stands before its accents, which can then be left out.
        let letters = name.as_str().nfkd().filter(|c| !is_combining_mark(*c));
        let mut slug = String::with_capacity(SLUG_MAX);
        for c in letters {
            if slug.len() == SLUG_MAX {
                break;
            }
            if c.is_ascii_alphanumeric() {
                slug.push(c.to_ascii_lowercase());
            } else if !slug.is_empty() && !slug.ends_with('-') && !matches!(c, '\'' | '’') {
                slug.push('-');
            }
        }
        let slug = slug.trim_end_matches('-');
        match slug.len() {
            0 => Self(SLUG_FALLBACK.to_owned()),
            1 => Self(format!("{SLUG_FALLBACK}-{slug}")),
            _ => Self(slug.to_owned()),
        }
    }

    /// The same slug with a number behind it, for when the bare one is taken.
    pub fn with_suffix(&self, number: u32) -> Self {
        let suffix = format!("-{number}");
        let kept: String = self.0.chars().take(SLUG_MAX - suffix.len()).collect();
        Self(format!("{}{suffix}", kept.trim_end_matches('-')))
    }
}

/// The text is kept as it was sent: a parser's own spelling would surprise whoever reads it back.
fn avatar_url(text: &str) -> Result<String, TextError> {
    let text = text.trim();
    if text.len() > URL_MAX {
        return Err(TextError::new(format!("must be at most {URL_MAX} characters")));
    }
    let wrong = || TextError::new("must be an http or https URL");
    // The parser skips line breaks and takes `https:\host`, which is not for others to repeat.
    if text.contains(|c: char| c.is_whitespace() || breaks_line(c) || c == '\\') {
        return Err(wrong());
    }
    let (scheme, _) = text.split_once("://").ok_or_else(wrong)?;
    let url = Url::parse(text).or(Err(wrong()))?;
    let http = matches!(url.scheme(), "http" | "https") && scheme.eq_ignore_ascii_case(url.scheme());
    if !http || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

fn timezone(text: &str) -> Result<String, TextError> {
    let text = text.trim();
    let part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_+-".contains(c));
    if text.len() <= TIMEZONE_MAX
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.split('/').all(part)
        && text.split('/').count() <= 3
    {
        return Ok(text.to_owned());
    }
    Err(TextError::new("must be the name of a time zone such as Europe/Berlin or UTC"))
}

/// A password as it was typed. Can be neither displayed nor, by `Debug`, logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Fewest characters.
    pub const MIN_CHARS: usize = 8;
    /// Most characters: hashing time must not depend on what strangers send.
    pub const MAX_CHARS: usize = 128;

    /// Checks a password and takes it over, blanks at its ends included.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let (min, max) = (Self::MIN_CHARS, Self::MAX_CHARS);
        if !(min..=max).contains(&text.chars().count()) {
            return Err(TextError::new(format!("must be {min} to {max} characters")));
        }
        if text.contains('\0') {
            return Err(TextError::new("must not contain NUL characters"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The password. For the hash only.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}
