//! Bytes that are kept for long, and many of them: in one piece of memory or in two, whichever takes less.
//!
//! Allocators as the one that is used here (mimalloc, but jemalloc too) have four sizes between a power of two and the
//! next, so that one piece of 1069 bytes takes 1280, and two of 1024 and 45 take 1072. Where the allocator is another, this
//! costs one piece more and gains nothing.

/// What two pieces have to save.
const WORTH_IT: usize = 64;
/// What is longer stays in one piece: beside its length, what an entry takes besides is little.
const LONGEST: usize = 4096;

/// Bytes in one piece or in two. Equal ones are divided equally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pieces {
    first: Box<[u8]>,
    /// Empty if there is only one.
    second: Box<[u8]>,
}

impl Pieces {
    /// These parts, one behind the other. So many bytes as are `undivided` are all in the first piece.
    pub(super) fn joined<const N: usize>(parts: [&[u8]; N], undivided: usize) -> Self {
        let length = parts.iter().map(|part| part.len()).sum();
        let mut room = length_of_first(length, undivided);
        // Not more than is needed, for as long as they are kept.
        let (mut first, mut second) = (Vec::with_capacity(room), Vec::with_capacity(length - room));
        for part in parts {
            let (fits, rest) = part.split_at(room.min(part.len()));
            first.extend_from_slice(fits);
            second.extend_from_slice(rest);
            room -= fits.len();
        }
        Self { first: first.into(), second: second.into() }
    }

    pub(super) fn first(&self) -> &[u8] {
        &self.first
    }

    pub(super) fn second(&self) -> &[u8] {
        &self.second
    }

    pub(super) fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }
}

/// How much of `length` bytes is to be in the first piece.
fn length_of_first(length: usize, undivided: usize) -> usize {
    let first = length - length % step(length);
    let two = first + allocated(length - first);
    let is_worth_it = length <= LONGEST && allocated(length) >= two + WORTH_IT;
    if is_worth_it && first >= undivided { first } else { length }
}

/// What an allocation of so many bytes takes.
const fn allocated(length: usize) -> usize {
    length.next_multiple_of(step(length))
}

/// How far the sizes are apart between the powers of two below and above.
const fn step(length: usize) -> usize {
    if length < 8 { 1 } else { length.next_power_of_two() / 8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(length: usize, undivided: usize) -> (usize, usize) {
        let pieces = Pieces::joined([&vec![b'x'; length]], undivided);
        (pieces.first().len(), pieces.second().len())
    }

    #[test]
    fn what_fills_its_piece_is_in_one_and_what_does_not_in_two() {
        for length in [0, 1, 7, 64, 100, 300, 1000, 1024, 1250, 1280, 20_400, 20_480] {
            assert_eq!(lengths(length, 0), (length, 0));
        }
        assert_eq!(lengths(700, 0), (640, 60));
        assert_eq!(lengths(705, 0), (705, 0), "to save 48 is not worth it");
        assert_eq!(lengths(1025, 0), (1024, 1));
        assert_eq!(lengths(1069, 0), (1024, 45));
        assert_eq!(lengths(4050, 0), (4050, 0), "the rest would take as much");
        assert_eq!(lengths(3700, 0), (3584, 116));
        assert_eq!(lengths(18_000, 0), (18_000, 0));
    }

    #[test]
    fn what_is_undivided_is_in_the_first_piece() {
        assert_eq!(lengths(1069, 1024), (1024, 45));
        assert_eq!(lengths(1069, 1025), (1069, 0));
    }

    #[test]
    fn parts_come_one_behind_the_other() {
        let (one, two, three) = ([b'1'; 700], [b'2'; 400], [b'3'; 100]);
        let pieces = Pieces::joined([&one, &two, &three], 700);
        assert_eq!((pieces.first().len(), pieces.len()), (1024, 1200));
        assert_eq!([pieces.first(), pieces.second()].concat(), [&one[..], &two, &three].concat());
    }
}
