//! A way to a private Redis on which things happen to what passes.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::mpsc,
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::redis::PrivateRedis;

/// A TCP port that leads to a private Redis.
pub struct Proxy {
    /// Where it is.
    pub url: String,
    weather: Weather,
    _stop: DropGuard,
}

/// What happens to what passes, to be changed from anywhere.
#[derive(Default, Clone)]
pub struct Weather {
    delay_ms: Arc<AtomicU64>,
    loses_messages: Arc<AtomicBool>,
}

impl Proxy {
    /// One that lets everything through.
    pub async fn start(redis: &PrivateRedis) -> Self {
        let socket = PathBuf::from(redis.url.trim_start_matches("unix://"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let (weather, stop) = (Weather::default(), CancellationToken::new());
        let accepting = {
            let (weather, stop) = (weather.clone(), stop.clone());
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let Ok(server) = UnixStream::connect(&socket).await else { continue };
                    let (weather, stop) = (weather.clone(), stop.clone());
                    tokio::spawn(
                        async move { stop.run_until_cancelled(carry(client, server, weather)).await },
                    );
                }
            }
        };
        let ending = stop.clone();
        tokio::spawn(async move { ending.run_until_cancelled(accepting).await });
        Self { url, weather, _stop: stop.drop_guard() }
    }

    /// The same weather, for whoever makes it.
    pub fn weather(&self) -> Weather {
        self.weather.clone()
    }

    /// Every answer takes so much longer from now on.
    pub fn delay(&self, delay: Duration) {
        self.weather.delay(delay);
    }

    /// Whether what is published is lost on the way to those who have subscribed.
    pub fn lose_messages(&self, loses: bool) {
        self.weather.lose_messages(loses);
    }
}

impl Weather {
    /// As of the [proxy](Proxy::delay).
    pub fn delay(&self, delay: Duration) {
        self.delay_ms.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// As of the [proxy](Proxy::lose_messages).
    pub fn lose_messages(&self, loses: bool) {
        self.loses_messages.store(loses, Ordering::SeqCst);
    }
}

async fn carry(client: TcpStream, server: UnixStream, weather: Weather) {
    let _ = client.set_nodelay(true);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async move {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    };
    let (sender, mut answers) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let back = async move {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
            let answer = bytes[..length].to_vec();
            let is_message = answer.windows(13).any(|part| part == b"$7\r\nmessage\r\n");
            if is_message && weather.loses_messages.load(Ordering::SeqCst) {
                continue;
            }
            let delay = Duration::from_millis(weather.delay_ms.load(Ordering::SeqCst));
            if sender.send((Instant::now() + delay, answer)).is_err() {
                return;
            }
        }
    };
    let late = async move {
        while let Some((due, answer)) = answers.recv().await {
            tokio::time::sleep_until(due).await;
            if to_client.write_all(&answer).await.is_err() {
                return;
            }
        }
    };
    // Whoever ends it ends it for both.
    tokio::select! {
        () = there => {}
        () = async { tokio::join!(back, late); } => {}
    }
}
