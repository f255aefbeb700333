//! Tokens that say nothing: 256 random bits, good for one use. Only their digests are stored.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Declares opaque tokens with what they begin with, so that people and scanners recognise a leaked one.
macro_rules! opaque_tokens {
    ($($(#[$doc:meta])+ $name:ident: $prefix:literal;)+) => {$(
        $(#[$doc])+
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name([u8; 32]);

        impl $name {
            /// A token that nobody has seen.
            #[expect(clippy::new_without_default, reason = "no token is the default one")]
            pub fn new() -> Self {
                Self(rand::random())
            }

            /// Takes a token that a client sent; `None` if it cannot be one.
            pub fn parse(text: &str) -> Option<Self> {
                let encoded = text.strip_prefix($prefix)?;
                // Checked first, so that nobody makes us decode megabytes.
                if encoded.len() != 43 {
                    return None;
                }
                let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
                bytes.try_into().ok().map(Self)
            }

            /// The token as the client gets it. For the response only.
            pub fn reveal(&self) -> String {
                format!("{}{}", $prefix, URL_SAFE_NO_PAD.encode(self.0))
            }

            /// What is stored instead of the token. No salt: 256 random bits cannot be guessed.
            pub fn digest(&self) -> [u8; 32] {
                Sha256::digest(self.0).into()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(***)"))
            }
        }
    )+};
}

opaque_tokens! {
    /// A refresh token, good for one exchange.
    RefreshToken: "lsr_";
    /// A ticket to the stream of events, for clients that cannot send an access token there.
    Ticket: "lst_";
}
