//! A network that can fail: a TCP proxy in front of a store.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinHandle,
};

/// Where a store listens.
#[derive(Debug, Clone)]
pub enum Target {
    Port(u16),
    Socket(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Everything passes.
    Open,
    /// Nothing arrives, in either direction, and nobody is told. What was sent meanwhile arrives when it is over, as what
    /// TCP repeats would.
    Silent,
    /// Connections are reset, old and new.
    Closed,
}

#[derive(Debug, Clone)]
struct State {
    target: Target,
    mode: Mode,
    /// How often all connections were cut.
    cuts: usize,
}

/// The proxy. Ends with it.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    state: watch::Sender<State>,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What its connections know.
#[derive(Default)]
struct Shared {
    /// Commits that are to be cut off from their answers, and whether they are to arrive.
    commits_to_cut: Mutex<VecDeque<bool>>,
    /// The store sees connections from these ports.
    ports: Mutex<HashSet<u16>>,
}

/// How PostgreSQL is told to commit.
const COMMIT: &[u8] = b"COMMIT\0";

impl Proxy {
    pub async fn start(target: Target) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, seen) = watch::channel(State { target, mode: Mode::Open, cuts: 0 });
        let shared = Arc::<Shared>::default();
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(carry(client, seen.clone(), Arc::clone(&shared)));
                }
            }
        });
        Self { address, state, shared, accepting }
    }

    /// Resets every connection; new ones pass.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Nothing arrives any more, and nobody is told.
    pub fn silence(&self) {
        self.state.send_modify(|state| state.mode = Mode::Silent);
    }

    /// Nobody is let in, and who is in is thrown out.
    pub fn close(&self) {
        self.state.send_modify(|state| {
            state.mode = Mode::Closed;
            state.cuts += 1;
        });
    }

    /// Everything passes again, also what was held back.
    pub fn open(&self) {
        self.state.send_modify(|state| state.mode = Mode::Open);
    }

    /// Leads elsewhere from now on; connections are reset.
    pub fn lead_to(&self, target: Target) {
        self.state.send_modify(|state| {
            state.target = target;
            state.cuts += 1;
        });
    }

    /// Resets the connection under the next commit, before its answer. It arrives or it does not.
    pub fn cut_a_commit(&self, arrives: bool) {
        self.shared.commits_to_cut.lock().unwrap().push_back(arrives);
    }

    /// Commits that have yet to come to be cut; none of them will be.
    pub fn spare_commits(&self) -> usize {
        std::mem::take(&mut *self.shared.commits_to_cut.lock().unwrap()).len()
    }

    /// Whether the store sees one of its connections as coming from this port.
    pub fn comes_from(&self, port: u16) -> bool {
        self.shared.ports.lock().unwrap().contains(&port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// Carries one connection to its end.
async fn carry(mut client: TcpStream, mut state: watch::Receiver<State>, shared: Arc<Shared>) {
    let State { target, cuts, .. } = state.borrow_and_update().clone();
    let _ = client.set_nodelay(true);
    if opened(&mut state, cuts).await.is_some() {
        match &target {
            Target::Port(port) => {
                if let Ok(store) = TcpStream::connect(("127.0.0.1", *port)).await {
                    let _ = store.set_nodelay(true);
                    let from = store.local_addr().unwrap().port();
                    shared.ports.lock().unwrap().insert(from);
                    between(&mut client, store, state, cuts, &shared).await;
                    shared.ports.lock().unwrap().remove(&from);
                }
            }
            Target::Socket(path) => {
                if let Ok(store) = UnixStream::connect(path).await {
                    between(&mut client, store, state, cuts, &shared).await;
                }
            }
        }
    }
    // A reset, not an orderly end: what breaks is a network.
    let _ = client.set_zero_linger();
}

async fn between<S>(
    client: &mut TcpStream,
    store: S,
    state: watch::Receiver<State>,
    cuts: usize,
    shared: &Shared,
) where
    S: AsyncRead + AsyncWrite,
{
    let (mut from_client, mut to_client) = client.split();
    let (mut from_store, mut to_store) = tokio::io::split(store);
    let severed = AtomicBool::new(false);
    let mut seen = state.clone();
    let requests = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = receive(&mut from_client, &mut buffer, &mut seen, cuts).await?;
            let chunk = buffer.get(..count)?;
            let commit = chunk.windows(COMMIT.len()).any(|window| window == COMMIT);
            let cut = if commit { shared.commits_to_cut.lock().unwrap().pop_front() } else { None };
            severed.store(cut.is_some(), Ordering::SeqCst);
            if cut == Some(false) {
                return None;
            }
            to_store.write_all(chunk).await.ok()?;
            if cut.is_some() {
                // Ended only when the answer is there, else the store might hear of the end before it hears the rest.
                return Some(());
            }
        }
    };
    let mut seen = state.clone();
    let answers = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Some(count) = receive(&mut from_store, &mut buffer, &mut seen, cuts).await {
            if severed.load(Ordering::SeqCst) || to_client.write_all(buffer.get(..count)?).await.is_err() {
                break;
            }
        }
        Some(())
    };
    tokio::pin!(answers);
    let cut_off = tokio::select! {
        cut_off = requests => cut_off.is_some(),
        _ = &mut answers => false,
    };
    if cut_off {
        let _ = tokio::time::timeout(Duration::from_secs(2), answers).await;
    }
}

/// The next bytes, when they may pass. `None`: it is over.
async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
    state: &mut watch::Receiver<State>,
    cuts: usize,
) -> Option<usize> {
    let read = tokio::select! {
        biased;
        _ = state.wait_for(|state| state.cuts != cuts) => return None,
        read = from.read(buffer) => read,
    };
    // That the other side has ended is not to be heard either while it is silent.
    opened(state, cuts).await?;
    read.ok().filter(|count| *count > 0)
}

/// Waits until everything passes. `None`: the connection was cut.
async fn opened(state: &mut watch::Receiver<State>, cuts: usize) -> Option<()> {
    let now = state.wait_for(|state| state.cuts != cuts || state.mode != Mode::Silent).await.ok()?;
    (now.cuts == cuts && now.mode == Mode::Open).then_some(())
}
