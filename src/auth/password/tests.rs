use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;

fn password(text: &str) -> Password {
    Password::parse(text).unwrap()
}

fn hasher(concurrency: usize, queue: usize) -> PasswordHasher {
    PasswordHasher::new(Handle::current(), concurrency, queue).unwrap()
}

/// Occupies a worker until the returned sender is dropped.
async fn occupy(hasher: &PasswordHasher) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel();
    let (started, start) = tokio::sync::oneshot::channel();
    let hasher = hasher.clone();
    Handle::current().spawn(async move {
        let work = move || {
            let _ = started.send(());
            let _ = released.recv();
        };
        hasher.run(work).await
    });
    start.await.unwrap();
    release
}

async fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_password_is_checked_against_its_hash() {
    let hasher = hasher(2, 2);
    let hash = hasher.hash(password("correct horse")).await.unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    assert_ne!(hash, hash_blocking(&password("correct horse")).unwrap());
    assert!(hasher.verify(password("correct horse"), Some(hash.clone())).await.unwrap());
    assert!(!hasher.verify(password("wrong horse"), Some(hash)).await.unwrap());
}

#[tokio::test]
async fn an_unknown_account_costs_the_work_of_a_known_one() {
    let hasher = hasher(1, 1);
    let known = hash_blocking(&password("correct horse")).unwrap();
    let (known, dummy) = (PasswordHash::new(&known).unwrap(), PasswordHash::new(&hasher.dummy).unwrap());
    assert_eq!(dummy.algorithm, known.algorithm);
    assert_eq!(dummy.version, known.version);
    assert_eq!(dummy.params, known.params);
    assert_eq!(dummy.hash.unwrap().len(), known.hash.unwrap().len());
    assert_eq!(dummy.salt.unwrap().len(), known.salt.unwrap().len());
    // It also queues like one.
    let worker = occupy(&hasher).await;
    let waiter = Handle::current().spawn({
        let hasher = hasher.clone();
        async move { hasher.verify(password("correct horse"), None).await }
    });
    until(|| hasher.waiting() == 1).await;
    drop(worker);
    assert!(!waiter.await.unwrap().unwrap());
}

#[tokio::test]
async fn an_unknown_account_is_refused_even_with_the_password_of_the_dummy() {
    let mut hasher = hasher(1, 1);
    hasher.dummy = hash_blocking(&password("correct horse")).unwrap().into();
    assert!(!hasher.verify(password("correct horse"), None).await.unwrap());
}

#[tokio::test]
async fn whoever_finds_the_queue_full_is_turned_away_at_once() {
    let hasher = hasher(2, 1);
    let workers = [occupy(&hasher).await, occupy(&hasher).await];
    let waiter = Handle::current().spawn({
        let hasher = hasher.clone();
        async move { hasher.hash(password("patient one")).await }
    });
    until(|| hasher.waiting() == 1).await;
    let refused = hasher.verify(password("late comer"), None).await;
    assert!(matches!(refused, Err(PasswordError::Busy)));
    drop(workers);
    assert!(waiter.await.unwrap().is_ok());
    assert!(hasher.hash(password("next one!")).await.is_ok());
    assert_eq!(hasher.waiting(), 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_its_place_and_its_work_keeps_its_own() {
    let hasher = hasher(1, 1);
    let worker = occupy(&hasher).await;
    let waiter = Handle::current().spawn({
        let hasher = hasher.clone();
        async move { hasher.hash(password("impatient")).await }
    });
    until(|| hasher.waiting() == 1).await;
    waiter.abort();
    until(|| hasher.waiting() == 0).await;
    drop(worker);
    until(|| hasher.work.available_permits() == 1).await;

    // This one goes away while its work runs.
    let (release, released) = mpsc::channel::<()>();
    let (started, start) = tokio::sync::oneshot::channel();
    let caller = Handle::current().spawn({
        let hasher = hasher.clone();
        async move {
            let work = move || {
                let _ = started.send(());
                let _ = released.recv();
            };
            hasher.run(work).await
        }
    });
    start.await.unwrap();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(hasher.work.available_permits(), 0);
    drop(release);
    until(|| hasher.work.available_permits() == 1 && hasher.admission.available_permits() == 2).await;
}

#[tokio::test]
async fn work_runs_on_the_given_runtime() {
    let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let hasher = PasswordHasher::new(other.handle().clone(), 1, 0).unwrap();
    assert!(!hasher.verify(password("correct horse"), None).await.unwrap());
    other.shutdown_background();
    let ended = hasher.verify(password("correct horse"), None).await;
    assert!(matches!(ended, Err(PasswordError::Interrupted(_))));
    assert_eq!(hasher.work.available_permits(), 1);
}

#[tokio::test]
async fn a_broken_hash_is_an_error_and_no_answer() {
    let hasher = hasher(1, 0);
    for broken in ["", "plain", "$argon2id$v=19$m=1,t=2,p=1$AAAAAAAAAAA$AAAA", "$1$abc$def"] {
        let result = hasher.verify(password("correct horse"), Some(broken.to_owned())).await;
        assert!(!matches!(result, Ok(true)), "{broken:?}");
    }
    let result = hasher.verify(password("correct horse"), Some("plain".to_owned())).await;
    assert!(matches!(result, Err(PasswordError::StoredHash(_))));
}

#[test]
fn weaker_hashes_are_replaced_and_stronger_ones_kept() {
    let with = |algorithm: &str, params: &str| {
        format!(
            "${algorithm}$v=19${params}$c29tZXNhbHRzb21lc2FsdA$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
        )
    };
    assert!(!needs_rehash(&hash_blocking(&password("correct horse")).unwrap()));
    assert!(!needs_rehash(&with("argon2id", "m=19456,t=2,p=1")));
    assert!(!needs_rehash(&with("argon2id", "m=65536,t=3,p=4")));
    assert!(needs_rehash(&with("argon2id", "m=12288,t=2,p=1")));
    assert!(needs_rehash(&with("argon2id", "m=19456,t=1,p=1")));
    assert!(needs_rehash(&with("argon2i", "m=19456,t=2,p=1")));
    assert!(needs_rehash("pbkdf2_sha256$600000$salt$hash"));
    assert!(needs_rehash(""));
}
