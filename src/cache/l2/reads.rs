//! Reads as Redis is asked for them: many in one call of a script, which says of each what there is.
//!
//! **Invariant.** What goes wrong with one is none of the others'. Redis does nothing else while it works on a call, so none
//! is for many reads, nor for many bytes: what would be too much is left for the next one.

use std::{sync::LazyLock, time::Duration};

use bytes::{Buf as _, Bytes};
use redis::{
    ErrorKind, Pipeline, RedisError, RedisResult, Script, ServerErrorKind, aio::MultiplexedConnection,
};

use super::{
    VERSION_LIFE,
    entries::{L2Read, Left, Lock, LockOwner, Wanted},
    milliseconds,
    names::{EntryNames, Names},
};
use crate::{
    cache::envelope::{number, words},
    redis::{is_unknown_script, script_call},
};

/// How long others leave a load to the instance that has begun it.
const LOCK_LIFE_MS: u16 = 1000;
/// Reads of one call.
const OF_ONE_CALL: usize = 32;
/// How answers begin for which there was no room in this one.
const LATER: &[u8] = b"LATER ";

static READ: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../lua/read.lua")));

/// What the script answers to a read: `OUTCOME SEQUENCE LOCK MS\nENTRY`.
type Answer = Bytes;

/// A read, in the words of the script.
pub(super) struct Reading {
    names: EntryNames,
    terms: String,
}

/// What all reads over a link have in common.
pub(super) struct Asking {
    pub(super) names: Names,
    pub(super) marker: String,
    pub(super) epoch: String,
}

impl Asking {
    pub(super) fn reading(&self, wanted: &Wanted<'_>, lock_owner: Option<LockOwner>) -> Reading {
        let Wanted { key, tags, fail_safe, refresh_below } = *wanted;
        let mut terms =
            String::with_capacity(64 + tags.iter().map(|tag| tag.as_str().len() + 1).sum::<usize>());
        let mut number = itoa::Buffer::new();
        for duration in [VERSION_LIFE + fail_safe, fail_safe, refresh_below] {
            terms.push_str(number.format(milliseconds(duration)));
            terms.push(' ');
        }
        match lock_owner {
            Some(owner) => owner.write_to(&mut terms),
            None => terms.push('-'),
        }
        for tag in tags {
            terms.push(' ');
            terms.push_str(tag.as_str());
        }
        Reading { names: self.names.entry_and_lock(key), terms }
    }

    /// Asks for all of these in one round trip, or a few: what there was no room for in an answer is asked for again, and
    /// so is what the script was not known for. Nothing else is, for it may have acquired its lock. Answers in their order.
    ///
    /// # Errors
    /// Those of the round trip.
    pub(super) async fn ask(
        &self,
        connection: &mut MultiplexedConnection,
        readings: &[Reading],
    ) -> RedisResult<Vec<RedisResult<Option<L2Read>>>> {
        let mut answers: Vec<Option<RedisResult<Answer>>> = readings.iter().map(|_| None).collect();
        let mut put = |index: usize, answer| answers.get_mut(index).and_then(|slot| slot.replace(answer));
        let mut left: Vec<(usize, &Reading)> = readings.iter().enumerate().collect();
        let mut was_told = false;
        while !left.is_empty() {
            let outcomes: Vec<RedisResult<Vec<u8>>> = self.calls(&left).query_async(connection).await?;
            let (mut again, mut is_unknown) = (Vec::new(), false);
            for (part, outcome) in left.chunks(OF_ONE_CALL).zip(outcomes) {
                match outcome.and_then(|text| separate(text.into(), part.len()).ok_or_else(unexpected)) {
                    Ok(of_part) => part.iter().zip(of_part).for_each(|(reading, answer)| {
                        if answer.starts_with(LATER) {
                            again.push(*reading);
                        } else {
                            put(reading.0, Ok(answer));
                        }
                    }),
                    Err(err) if is_unknown_script(&err) && !was_told => {
                        is_unknown = true;
                        again.extend_from_slice(part);
                    }
                    Err(err) => part.iter().for_each(|(index, _)| {
                        put(*index, Err(err.clone()));
                    }),
                }
            }
            if is_unknown {
                let _: String = READ.load_async(connection).await?;
                was_told = true;
            }
            left = again;
        }
        let answers = answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(unexpected())));
        Ok(answers.map(|answer| answer.and_then(understand)).collect())
    }

    /// Written in one piece: of all there is, Redis is asked this most.
    fn calls(&self, readings: &[(usize, &Reading)]) -> Pipeline {
        let mut calls = redis::pipe();
        for part in readings.chunks(OF_ONE_CALL) {
            let keys = 1 + 2 * part.len();
            let mut call = script_call(&READ, keys, 4 + part.len(), 256 + part.len() * 512);
            call.arg(self.names.meta());
            for (_, reading) in part {
                call.arg(reading.names.both().as_slice());
            }
            call.arg(&self.marker).arg(&self.epoch).arg(self.names.tag_prefix()).arg(LOCK_LIFE_MS);
            for (_, reading) in part {
                call.arg(&reading.terms);
            }
            calls.add_command(call);
        }
        calls.ignore_errors();
        calls
    }
}

/// So many answers, of one text.
fn separate(mut text: Bytes, count: usize) -> Option<Vec<Answer>> {
    let lengths = text.split_to(memchr::memchr(b'\n', &text)? + 1);
    let lengths = words(lengths.trim_ascii_end()).map(|word| usize::try_from(number(word)?).ok());
    let answers = lengths.map(|length| {
        let length = length.filter(|length| *length <= text.len())?;
        Some(text.split_to(length))
    });
    let answers = answers.collect::<Option<Vec<_>>>()?;
    (answers.len() == count && text.is_empty()).then_some(answers)
}

/// What an answer says; `None`: that this is another life of the data.
///
/// # Errors
/// What went wrong with this read, or when the answer is none of the script's.
fn understand(mut answer: Answer) -> RedisResult<Option<L2Read>> {
    let (outcome, [sequence, lock, ms], header_end) = header(&answer).ok_or_else(unexpected)?;
    let time = Duration::from_millis(ms);
    let lock = match lock {
        1 => Lock::Acquired,
        2 => Lock::HeldByAnother,
        _ => Lock::NotAsked,
    };
    answer.advance(header_end + 1);
    Ok(match outcome {
        Outcome::Hit => Some(L2Read::Hit { sequence, ttl: time, envelope: answer, lock }),
        Outcome::Miss => {
            let left = match &*answer {
                b"" => Left::Nothing,
                b"stale" => Left::Stale,
                _ => Left::Expired { envelope: answer, kept: time },
            };
            Some(L2Read::Miss { sequence, left, lock })
        }
        Outcome::Epoch => None,
        Outcome::Error => return Err(failure(&String::from_utf8_lossy(&answer))),
    })
}

enum Outcome {
    Hit,
    Miss,
    Epoch,
    Error,
}

/// The first line of an answer, and where it ends.
fn header(answer: &[u8]) -> Option<(Outcome, [u64; 3], usize)> {
    let end = memchr::memchr(b'\n', answer)?;
    let mut words = words(answer.get(..end)?);
    let outcome = match words.next()? {
        b"HIT" => Outcome::Hit,
        b"MISS" => Outcome::Miss,
        b"EPOCH" => Outcome::Epoch,
        b"ERROR" => Outcome::Error,
        _ => return None,
    };
    let mut next = || number(words.next()?);
    Some((outcome, [next()?, next()?, next()?], end))
}

/// An error as Redis has told it to the script.
fn failure(message: &str) -> RedisError {
    let kind = match message.split_once(' ') {
        Some(("READONLY", _)) => ServerErrorKind::ReadOnly,
        _ => ServerErrorKind::ResponseError,
    };
    (ErrorKind::Server(kind), "a read failed", message.to_owned()).into()
}

fn unexpected() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "a script has answered in another form than its own").into()
}

#[cfg(test)]
mod tests;
