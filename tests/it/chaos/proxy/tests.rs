//! The network fails as it is told to: else the suite would find nothing, whatever is wrong.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use super::{Proxy, Target};

/// Longer than anything takes that passes.
const SILENCE: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(5);

/// Somebody who answers with what he is told, and says what he was told.
async fn echo() -> (Target, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 100];
                while let Ok(count @ 1..) = client.read(&mut buffer).await {
                    tell.send(buffer[..count].to_vec()).unwrap();
                    let _ = client.write_all(&buffer[..count]).await;
                }
            });
        }
    });
    (Target::Port(port), told)
}

async fn says(client: &mut TcpStream, text: &[u8]) {
    let mut answer = vec![0; text.len()];
    timeout(LIMIT, client.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, text);
}

async fn is_reset(client: &mut TcpStream) {
    assert!(timeout(LIMIT, client.read_u8()).await.unwrap().is_err());
}

#[tokio::test]
async fn in_silence_nothing_arrives_and_afterwards_everything() {
    let (target, mut told) = echo().await;
    let proxy = Proxy::start(target).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(b"one").await.unwrap();
    says(&mut client, b"one").await;
    assert_eq!(told.recv().await.unwrap(), b"one");

    proxy.silence();
    client.write_all(b"two").await.unwrap();
    let mut late = TcpStream::connect(proxy.address).await.unwrap();
    late.write_all(b"three").await.unwrap();
    assert!(timeout(SILENCE, client.read_u8()).await.is_err());
    assert!(told.try_recv().is_err());
    proxy.open();
    says(&mut client, b"two").await;
    says(&mut late, b"three").await;
}

#[tokio::test]
async fn what_is_cut_is_reset_and_new_connections_pass_until_it_is_closed() {
    let (target, _told) = echo().await;
    let proxy = Proxy::start(target).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(b"one").await.unwrap();
    says(&mut client, b"one").await;
    proxy.cut();
    is_reset(&mut client).await;

    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(b"two").await.unwrap();
    says(&mut client, b"two").await;
    proxy.close();
    is_reset(&mut client).await;
    is_reset(&mut TcpStream::connect(proxy.address).await.unwrap()).await;

    proxy.open();
    let (other, mut told) = echo().await;
    proxy.lead_to(other);
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(b"three").await.unwrap();
    says(&mut client, b"three").await;
    assert_eq!(told.recv().await.unwrap(), b"three");
}

#[tokio::test]
async fn a_commit_is_cut_off_from_its_answer_whether_it_arrives_or_not() {
    let (target, mut told) = echo().await;
    let proxy = Proxy::start(target).await;
    for arrives in [true, false] {
        proxy.cut_a_commit(arrives);
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        client.write_all(b"BEGIN\0").await.unwrap();
        says(&mut client, b"BEGIN\0").await;
        assert_eq!(told.recv().await.unwrap(), b"BEGIN\0");
        client.write_all(b"COMMIT\0").await.unwrap();
        is_reset(&mut client).await;
        assert_eq!(told.try_recv().is_ok(), arrives);
    }
    assert_eq!(proxy.spare_commits(), 0);
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(b"COMMIT\0").await.unwrap();
    says(&mut client, b"COMMIT\0").await;
}
