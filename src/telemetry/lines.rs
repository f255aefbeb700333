//! Where lines wait for each other, to be written together by a thread of their own.
//!
//! A system call for each line would be a large part of what an answer from memory costs. So nobody who logs ever waits
//! for whoever reads the lines. If that one stands still, lines are kept up to a bound, and then counted instead.

use std::{
    io::{self, ErrorKind, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How long a line waits for others at most.
pub(super) const MOMENT: Duration = Duration::from_millis(50);
/// With so many bytes no line waits any longer.
const ENOUGH: usize = 32 * 1024;
/// No more bytes than this wait for whoever reads them.
const MOST: usize = 4 * 1024 * 1024;
/// A pipe takes so much in one piece or not at all, also if several processes write to it.
const PIECE: usize = 4096;
/// How long whoever ends the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Pause where standard error takes nothing at present and says so instead of waiting.
const FULL: Duration = Duration::from_millis(5);

/// Takes lines, of which each is one call of `write`.
#[derive(Clone)]
pub(super) struct Lines {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Tells the thread that there is something to do.
    wake: Condvar,
    /// Tells whoever flushes that something was written.
    written: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Nobody wants to wait for more of them.
    urgent: bool,
    /// Lines for which there was no room.
    dropped: u64,
    /// Bytes that were ever taken.
    taken: u64,
    /// And those of them that have been written, or could not be.
    done: u64,
}

impl Lines {
    /// Begins to write to `out`. `report` is told of lines that were dropped, once there is room again.
    pub(super) fn to(
        out: impl Write + Send + 'static,
        report: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || of_thread.write_to(out, report))?;
        Ok(Self { shared })
    }

    /// What waits is written at once. Does not wait for it.
    pub(super) fn hurry(&self) {
        self.shared.lock().urgent = true;
        self.shared.wake.notify_one();
    }

    /// Waits until everything so far is written, though not for ever.
    pub(super) fn flush(&self) {
        self.hurry();
        let waiting = self.shared.lock();
        let taken = waiting.taken;
        // If it takes longer, nobody reads.
        drop(self.shared.written.wait_timeout_while(waiting, LAST_LINES, |now| now.done < taken));
    }

    fn push(&self, line: &[u8]) {
        let mut waiting = self.shared.lock();
        let before = waiting.lines.len();
        if before + line.len() > MOST {
            waiting.dropped += 1;
            return;
        }
        waiting.lines.extend_from_slice(line);
        waiting.taken += count(line);
        let wakes = before == 0 || before < ENOUGH && waiting.lines.len() >= ENOUGH;
        drop(waiting);
        if wakes {
            self.shared.wake.notify_one();
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    /// Comes after each line, and means nothing.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread. It ends with the process.
    fn write_to(&self, mut out: impl Write, report: impl Fn(u64)) {
        let mut batch = Vec::new();
        loop {
            let dropped = self.take(&mut batch);
            pieces(&batch).for_each(|piece| write_whole(&mut out, piece));
            self.lock().done += count(&batch);
            self.written.notify_all();
            batch.clear();
            batch.shrink_to(2 * ENOUGH);
            if dropped > 0 {
                report(dropped);
            }
        }
    }

    /// Waits for lines, and then for a moment for more of them. Returns how many were dropped.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let any = self.wake.wait_while(self.lock(), |waiting| waiting.lines.is_empty());
        let any = any.unwrap_or_else(PoisonError::into_inner);
        let enough = self
            .wake
            .wait_timeout_while(any, MOMENT, |waiting| !waiting.urgent && waiting.lines.len() < ENOUGH);
        let (mut waiting, _) = enough.unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut waiting.lines, batch);
        waiting.urgent = false;
        mem::take(&mut waiting.dropped)
    }
}

fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Whole lines, as many as make a [`PIECE`]; a longer line alone.
fn pieces(mut lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let within = lines.get(..PIECE).unwrap_or(lines);
        let end = within.iter().rposition(|byte| *byte == b'\n');
        let end = end.or_else(|| lines.iter().position(|byte| *byte == b'\n'));
        let (piece, rest) = lines.split_at(end.map_or(lines.len(), |end| end + 1));
        lines = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// There is nobody to tell if it fails.
fn write_whole(out: &mut impl Write, mut piece: &[u8]) {
    while !piece.is_empty() {
        match out.write(piece) {
            Ok(written) if written > 0 => piece = piece.get(written..).unwrap_or_default(),
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) if err.kind() == ErrorKind::WouldBlock => thread::park_timeout(FULL),
            Ok(_) | Err(_) => return,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
