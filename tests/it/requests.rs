//! Thousands of requests that nobody has thought of, right ones and broken ones, by whoever has nothing but the document:
//! whatever is sent, the answer is one of which the document speaks.
//!
//! `TEST_SEED` repeats what was sent; ids and times are others each time.

mod breakage;
mod generator;
mod judge;
mod values;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use diesel_async::SimpleAsyncConnection as _;

use self::{generator::Generator, judge::Api};
use crate::support::{Cluster, eventually, optional_setting, world::World};

const REQUESTS: u64 = 3000;
/// How many are under way at a time.
const SENDERS: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_the_answer_is_one_of_which_the_document_speaks() {
    let seed = optional_setting("TEST_SEED").map_or_else(rand::random::<u64>, |seed| seed.parse().unwrap());
    println!("to be repeated with TEST_SEED={seed}");
    let cluster = Cluster::start(1).await;
    let nobody = cluster.instances[0].client();
    let (api, world) = (Arc::new(Api::read(&nobody).await), Arc::new(World::make(&nobody).await));
    // What is for staff only is to be done, too.
    let owner = format!("UPDATE users SET is_staff = true WHERE id = '{}'", world.owner.user_id);
    cluster.database.connect().await.batch_execute(&owner).await.unwrap();
    eventually("the owner is staff", Duration::from_secs(3), async || {
        (world.owner.get("/v1/admin/cache").await.status == 200).then_some(())
    })
    .await;
    let idle: HashSet<_> = api.operations.iter().map(|operation| operation.id.clone()).collect();
    let idle = Arc::new(Mutex::new(idle));
    let senders: Vec<_> = (0..SENDERS)
        .map(|number| {
            let generator = Generator::new(seed, number, &api, &world, &nobody);
            tokio::spawn(send_and_judge(generator, Arc::clone(&api), Arc::clone(&idle)))
        })
        .collect();
    let (mut faults, mut answers) = (BTreeMap::new(), BTreeMap::<_, usize>::new());
    for sender in senders {
        let (found, seen) = sender.await.unwrap();
        faults.extend(found);
        seen.into_iter().for_each(|(answer, count)| *answers.entry(answer).or_default() += count);
    }

    nobody.get("/livez").await.expect(200);
    let log = cluster.instances[0].log();
    assert!(!log.contains("panicked"), "{log}");
    let told: Vec<_> = faults.values().map(String::as_str).collect();
    assert!(told.is_empty(), "TEST_SEED={seed}: {} kinds of faults\n\n{}", told.len(), told.join("\n\n"));

    // Else it would be no wonder.
    let idle = idle.lock().unwrap();
    assert!(idle.is_empty(), "TEST_SEED={seed}: never done: {idle:?}");
    for status in [200, 201, 204, 304, 308, 400, 401, 403, 404, 415, 422] {
        assert!(answers.keys().any(|(_, seen)| *seen == status), "TEST_SEED={seed}: nothing was {status}");
    }
}

/// The faults, one of each kind, and how often each operation has answered with each status.
type Found = (BTreeMap<(String, String), String>, BTreeMap<(String, u16), usize>);

/// `idle` is what nobody has done yet: until there is nothing left, or hope is lost, there are more requests.
async fn send_and_judge(mut generator: Generator, api: Arc<Api>, idle: Arc<Mutex<HashSet<String>>>) -> Found {
    let mut found = Found::default();
    generator.prepare().await;
    let share = REQUESTS / SENDERS;
    for count in 0..4 * share {
        if count >= share && idle.lock().unwrap().is_empty() {
            break;
        }
        let request = generator.next_request();
        let reply = generator.send(&request).await;
        let operation = &api.operations[request.operation];
        *found.1.entry((operation.id.clone(), reply.status)).or_default() += 1;
        if reply.status < 400 {
            idle.lock().unwrap().remove(&operation.id);
        }
        if let Err(fault) = api.judge(&request, &reply) {
            let told = format!("{fault}\n  {request:?}\n  {reply:?}");
            let short: String = told.chars().take(3000).collect();
            found.0.entry((operation.id.clone(), fault)).or_insert(short);
        }
        generator.learn(&request, &reply);
    }
    found
}
