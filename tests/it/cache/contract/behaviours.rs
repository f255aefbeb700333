//! The behaviours. Each is given a stage of its own, of any combination.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use lockstep::cache::{LoadError, Tag, Token};

use super::{
    super::{Gate, learned_tag, nth_key},
    Stage,
    stage::{BRIEF, Combination},
};
use crate::support::eventually;

pub async fn a_node_never_shows_less_than_it_has_acknowledged(stage: &Stage) {
    for value in 1..=60 {
        let node = usize::try_from(value % 2).unwrap();
        stage.read(node, 1).await;
        stage.write(node, 1, Some(value)).await;
        assert_eq!(stage.read(node, 1).await, Some(value));
        assert_eq!(stage.read_many(node, &[1], None).await, [Some(value)]);
        stage.shows(1 - node, 1, Some(value)).await;
    }
}

pub async fn with_the_token_of_a_write_the_other_node_shows_it_at_once(stage: &Stage) {
    for value in 1..=60 {
        stage.read(1, 1).await;
        let token = stage.write(0, 1, Some(value)).await;
        assert_eq!(stage.read_gated(1, 1, Some(&token), None).await.unwrap(), Some(value));
        assert_eq!(stage.read_many(1, &[1, 2, 1], Some(&token)).await, [Some(value), None, Some(value)]);
    }
}

pub async fn without_a_token_the_other_node_shows_a_write_within_the_bound(stage: &Stage) {
    for value in 1..=15 {
        stage.read(0, 1).await;
        stage.read(1, 1).await;
        stage.write(0, 1, Some(value)).await;
        stage.shows(1, 1, Some(value)).await;
    }
}

pub async fn what_was_absent_is_found_once_it_is_there_and_gone_once_it_is_not(stage: &Stage) {
    for value in 1..=5 {
        for node in 0..2 {
            assert_eq!(stage.read(node, 1).await, None);
        }
        for there in [Some(value), None] {
            let token = stage.write(0, 1, there).await;
            assert_eq!(stage.read(0, 1).await, there);
            assert_eq!(stage.read_gated(1, 1, Some(&token), None).await.unwrap(), there);
            stage.shows(1, 1, there).await;
        }
    }
}

pub async fn an_error_is_told_and_not_kept(stage: &Stage) {
    for number in 0..5 {
        stage.rows.set(number, Some(1));
        stage.rows.fails.store(true, Ordering::SeqCst);
        for node in 0..2 {
            let failed = stage.read_gated(node, number, None, None).await;
            assert!(matches!(failed, Err(LoadError::Failed(_))), "{failed:?}");
        }
        stage.rows.fails.store(false, Ordering::SeqCst);
        for node in 0..2 {
            assert_eq!(stage.read(node, number).await, Some(1));
        }
    }
}

pub async fn what_is_there_is_loaded_once(stage: &Stage) {
    stage.rows.set(1, Some(1));
    for _ in 0..20 {
        assert_eq!(stage.read(0, 1).await, Some(1));
        assert_eq!(stage.read(0, 2).await, None);
    }
    let loads = stage.rows.loads();
    match stage.combination {
        Combination::Off => assert_eq!(loads, 40),
        // Between two cuts.
        Combination::Cut | Combination::Lossy => {
            eventually("it is found", Duration::from_secs(10), async || {
                stage.read(0, 1).await;
                stage.rows.loads();
                stage.read(0, 1).await;
                (stage.rows.loads() == 0).then_some(())
            })
            .await;
        }
        _ => assert_eq!(loads, 2),
    }
    // With Redis, nor is it by another.
    if matches!(stage.combination, Combination::L2 | Combination::Both) {
        assert_eq!((stage.read(1, 1).await, stage.read(1, 2).await), (Some(1), None));
        assert_eq!(stage.rows.loads(), 0);
    }
}

pub async fn readers_who_come_together_share_a_load(stage: &Stage) {
    stage.rows.set(1, Some(1));
    let gates: Vec<_> = (0..30).map(|_| Arc::new(Gate::default())).collect();
    let readers = join_all(gates.iter().map(|gate| stage.read_gated(0, 1, None, Some(Arc::clone(gate)))));
    let (reads, loads) = tokio::join!(readers, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let loads = stage.rows.loads();
        gates.iter().for_each(|gate| gate.open.notify_one());
        loads
    });
    assert!(reads.iter().all(|read| matches!(read, Ok(Some(1)))), "{reads:?}");
    match stage.combination {
        Combination::Off => assert_eq!(loads, 30),
        // One for each time that trust was lost or won meanwhile, at most.
        Combination::Cut | Combination::Lossy => assert!(loads <= 3, "{loads}"),
        _ => assert_eq!(loads, 1),
    }
}

pub async fn a_tag_that_only_the_load_knows_ends_an_entry(stage: &Stage) {
    for value in 1..=15 {
        stage.read(0, 1).await;
        stage.read(1, 1).await;
        let token = stage.write_tagged(0, 1, Some(value), learned_tag()).await;
        assert_eq!(stage.read(0, 1).await, Some(value));
        assert_eq!(stage.read_gated(1, 1, Some(&token), None).await.unwrap(), Some(value));
        stage.shows(1, 1, Some(value)).await;
    }
}

pub async fn invalidating_everything_ends_every_entry(stage: &Stage) {
    for value in 1..=5 {
        for number in 0..20 {
            stage.read(0, number).await;
            stage.read(1, number).await;
        }
        let change_all = || (0..20).for_each(|number| stage.rows.set(number, Some(value)));
        let token = stage.nodes[0].invalidate(&[Tag::all()], change_all).await;
        for number in 0..20 {
            assert_eq!(stage.read(0, number).await, Some(value));
            assert_eq!(stage.read_gated(1, number, Some(&token), None).await.unwrap(), Some(value));
            stage.shows(1, number, Some(value)).await;
        }
    }
}

pub async fn a_pattern_takes_out_what_it_matches_and_spares_the_rest(stage: &Stage) {
    let pattern = [Tag::pattern(&nth_key(1).to_string().replace(":v1", ":v?")).unwrap()];
    for node in 0..2 {
        assert_eq!((stage.read(node, 1).await, stage.read(node, 2).await), (None, None));
    }
    // Nobody is told.
    stage.rows.set(1, Some(1));
    stage.rows.set(2, Some(1));
    eventually("both nodes load it again", Duration::from_secs(10), async || {
        // Again where a node was cut off from Redis just then: the relay would do it.
        stage.nodes[0].invalidate(&pattern, || ()).await;
        stage.nodes[0].cache.delete_from_l2(&pattern).await;
        let all_gone = async {
            stage.shows(0, 1, Some(1)).await;
            stage.shows(1, 1, Some(1)).await;
        };
        tokio::time::timeout(Duration::from_secs(1), all_gone).await.ok()
    })
    .await;
    let spared = (stage.read(0, 2).await, stage.read(1, 2).await);
    if stage.is_steady() {
        assert_eq!(spared, (None, None));
    }
}

pub async fn an_entry_ends_with_its_time(stage: &Stage) {
    for value in 1..=3 {
        for node in 0..2 {
            stage.read_for_a_moment(node, 1).await;
        }
        // Nobody is told.
        stage.rows.set(1, Some(value));
        if stage.is_steady() {
            stage.rows.loads();
        }
        for node in 0..2 {
            eventually("its time is up", 2 * BRIEF + Duration::from_millis(400), async || {
                (stage.read_for_a_moment(node, 1).await == Some(value)).then_some(())
            })
            .await;
        }
    }
}

pub async fn a_batch_says_what_single_reads_say(stage: &Stage) {
    let numbers: Vec<u128> = (0..30).chain([3, 7, 3]).collect();
    for round in 0..5 {
        for number in (0..30).filter(|number| number % 3 != 0) {
            stage.write(0, number, (number % 5 != 0).then_some(round)).await;
        }
        for number in [4, 5, 6, 21] {
            stage.read(0, number).await;
        }
        stage.read_many(1, &[7, 8, 9], None).await;
        let batch = stage.read_many(0, &numbers, None).await;
        let mut singles = Vec::new();
        for number in &numbers {
            singles.push(stage.read(0, *number).await);
        }
        let truth: Vec<_> = numbers.iter().map(|number| stage.rows.get(*number)).collect();
        assert_eq!((&batch, &singles), (&truth, &truth));
    }
    stage.rows.loads();
    stage.read_many(0, &numbers, None).await;
    if stage.is_steady() {
        assert_eq!(stage.rows.loads(), 0);
    }
}

pub async fn a_token_that_nobody_knows_leads_to_the_database(stage: &Stage) {
    for (value, token) in (1..).zip([Token::unknown(), Token::new(12345, 7), Token::recorded(u64::MAX / 4)]) {
        for node in 0..2 {
            stage.read(node, 1).await;
        }
        // Nobody is told.
        stage.rows.set(1, Some(value));
        for node in 0..2 {
            assert_eq!(stage.read_gated(node, 1, Some(&token), None).await.unwrap(), Some(value));
            assert_eq!(stage.read_many(node, &[1], Some(&token)).await, [Some(value)]);
        }
    }
}

pub async fn a_load_that_straddles_an_invalidation_is_not_kept(stage: &Stage) {
    for (value, tag) in (1..).zip([nth_tag_of(1), learned_tag(), Tag::all()]) {
        // As of a write that every tier has heard of.
        let token = stage.write(1, 1, Some(100)).await;
        let gate = Arc::new(Gate::default());
        let (old, ()) = tokio::join!(stage.read_gated(0, 1, Some(&token), Some(Arc::clone(&gate))), async {
            gate.reached.notified().await;
            stage.write_tagged(1, 1, Some(value), tag.clone()).await;
            gate.open.notify_one();
        });
        assert!(matches!(old.unwrap(), Some(100)), "it had read before the write");
        assert_eq!(stage.read(1, 1).await, Some(value), "on the node that wrote, under {tag}");
        stage.shows(0, 1, Some(value)).await;
        for node in [0, 1, 0, 1] {
            assert_eq!(stage.read(node, 1).await, Some(value), "under {tag}");
        }
    }
}

pub async fn a_reader_who_comes_after_a_write_gets_nothing_from_before_it(stage: &Stage) {
    for (value, tag) in (1..).zip([nth_tag_of(1), learned_tag(), Tag::all()]) {
        let before = stage.write(0, 1, Some(100)).await;
        let gate = Arc::new(Gate::default());
        let (old, fresh) =
            tokio::join!(stage.read_gated(0, 1, Some(&before), Some(Arc::clone(&gate))), async {
                gate.reached.notified().await;
                let token = stage.write_tagged(0, 1, Some(value), tag.clone()).await;
                let reads =
                    async { tokio::join!(stage.read(0, 1), stage.read_gated(1, 1, Some(&token), None)) };
                let reads = tokio::time::timeout(Duration::from_secs(5), reads);
                let opening = async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    gate.open.notify_one();
                };
                tokio::join!(reads, opening).0.unwrap()
            });
        assert!(matches!(old.unwrap(), Some(100)));
        assert_eq!((fresh.0, fresh.1.unwrap()), (Some(value), Some(value)), "under {tag}");
    }
}

fn nth_tag_of(number: u128) -> Tag {
    super::super::nth_tag(number)
}
