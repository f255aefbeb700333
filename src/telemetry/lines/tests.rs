use std::{sync::mpsc, time::Instant};

use super::*;

/// What was written, each call of `write` by itself. Like a pipe whose reader may stand still.
#[derive(Clone, Default)]
pub(in crate::telemetry) struct Output {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    pieces: Vec<Vec<u8>>,
    stands_still: bool,
    /// Somebody wants to write meanwhile.
    is_wanted: bool,
}

impl Output {
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    fn stand_still(&self, stands_still: bool) {
        self.state().stands_still = stands_still;
        self.shared.1.notify_all();
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let patience = Duration::from_secs(10);
        let waited = self.shared.1.wait_timeout_while(self.state(), patience, |state| !holds(state));
        let (state, waited) = waited.unwrap();
        drop(state);
        assert!(!waited.timed_out(), "{what}");
    }

    /// All that was written.
    pub(in crate::telemetry) fn text(&self) -> String {
        String::from_utf8(self.state().pieces.concat()).unwrap()
    }

    /// Waits until this is the end of all that was written.
    pub(in crate::telemetry) fn wait_for(&self, end: &str) {
        let what = format!("{end:?} was not written");
        self.wait_until(&what, |state| state.pieces.concat().ends_with(end.as_bytes()));
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        state.is_wanted = state.stands_still;
        self.shared.1.notify_all();
        let mut state = self.shared.1.wait_while(state, |state| state.stands_still).unwrap();
        state.is_wanted = false;
        state.pieces.push(bytes.to_vec());
        self.shared.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lines_to(output: &Output) -> (Lines, mpsc::Receiver<u64>) {
    let (report, reported) = mpsc::channel();
    let lines = Lines::to(output.clone(), move |count| report.send(count).unwrap_or_default());
    (lines.unwrap(), reported)
}

fn line(number: usize) -> String {
    format!("line {number} {}\n", "x".repeat(190))
}

#[test]
fn lines_are_written_together_and_soon() {
    let output = Output::default();
    let (lines, _) = lines_to(&output);
    let begun = Instant::now();
    (0..10).for_each(|number| lines.push(line(number).as_bytes()));
    output.wait_for(&line(9));
    let took = begun.elapsed();
    assert!(took < 20 * MOMENT, "{took:?}");
    assert_eq!(output.text(), (0..10).map(line).collect::<String>());
    let pieces = output.state().pieces.len();
    assert!(pieces < 5, "{pieces}");
}

#[test]
fn many_lines_are_not_kept_waiting_and_are_written_in_whole_lines() {
    let output = Output::default();
    let (lines, _) = lines_to(&output);
    let long = format!("{}\n", "y".repeat(3 * PIECE));
    for number in 0..1000 {
        lines.push(line(number).as_bytes());
        if number % 100 == 50 {
            lines.push(long.as_bytes());
        }
    }
    lines.flush();
    for piece in &output.state().pieces {
        assert!(piece.ends_with(b"\n") && (piece.len() <= PIECE || *piece == long.as_bytes()));
    }
    let written = output.text();
    let numbered = written.lines().filter(|written| written.starts_with("line "));
    assert!(numbered.eq((0..1000).map(line).collect::<String>().lines()));
    assert_eq!(written.lines().count(), 1010);
}

#[test]
fn while_nobody_reads_nobody_who_logs_waits_and_what_is_too_much_is_counted() {
    let output = Output::default();
    let (lines, reported) = lines_to(&output);
    output.stand_still(true);
    let line = line(0);
    lines.push(line.as_bytes());
    output.wait_until("nobody wants to write", |state| state.is_wanted);
    // That line is on its way out. So many fit behind it, and the rest do not.
    let (fit, rest) = (MOST / line.len(), 10_000_usize);
    (0..fit + rest).for_each(|_| lines.push(line.as_bytes()));
    {
        let waiting = lines.shared.lock();
        assert_eq!(waiting.lines.len(), fit * line.len());
        assert_eq!(usize::try_from(waiting.dropped), Ok(rest));
    }
    output.stand_still(false);
    let dropped = reported.recv_timeout(Duration::from_secs(10)).unwrap();
    lines.flush();
    assert_eq!(usize::try_from(dropped), Ok(rest));
    assert_eq!(output.text(), line.repeat(1 + fit));
}

#[test]
fn whoever_ends_the_process_does_not_wait_for_ever_for_a_reader() {
    let output = Output::default();
    let (lines, _) = lines_to(&output);
    output.stand_still(true);
    lines.push(b"never read\n");
    let begun = Instant::now();
    lines.flush();
    assert!((LAST_LINES..3 * LAST_LINES).contains(&begun.elapsed()));
    output.stand_still(false);
}

#[test]
fn a_pipe_that_is_full_and_says_so_gets_the_rest_later() {
    /// Takes three bytes at a time, every other time.
    struct Narrow(Output, bool);
    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                Err(ErrorKind::WouldBlock.into())
            } else {
                self.0.write(&bytes[..bytes.len().min(3)])
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let output = Output::default();
    let lines = Lines::to(Narrow(output.clone(), false), |_| ()).unwrap();
    lines.push(b"in small pieces\n");
    lines.flush();
    assert_eq!(output.text(), "in small pieces\n");
}
