//! What holds whatever fails: the cluster under load, one fault after another, and a checker that knows what was
//! acknowledged when.
//!
//! Each fault is a **phase**: 20 writers and 60 readers begin, nothing is wrong for a moment, the fault comes and goes,
//! and they go on for a while. Then everybody stops, and as soon as the bound has passed, every instance has to show what
//! is in PostgreSQL. All that was seen goes to the [`checker`].

mod balancer;
mod checker;
mod fault;
mod history;
mod load;
mod outside;
mod plan;
mod postgres;
mod proxy;
mod register;
mod stage;
mod table;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio::time::sleep;

pub use self::plan::Plan;
use self::{
    checker::{BOUND, judge},
    fault::{Fault, Scene},
    history::{Answer, Excuses, History, Write},
    load::{Load, WRITERS, World, glance},
    outside::Outside,
    register::{Kind, Register},
    stage::{INSTANCES, Stage},
    table::{Row, Table},
};
use crate::support::eventually;

/// How long nothing is wrong at first, and afterwards.
const CALM: Duration = Duration::from_secs(1);
const AFTERMATH: Duration = Duration::from_millis(1600);
/// Of the writers, those of documents; each two share a workspace.
const DOCUMENTS: usize = 8;
/// Documents that come and go by another program.
const COPIED: usize = 2;
/// Reads that memory has to answer while nothing is wrong, in percent. Writes make stale what is in it all the time.
const LEAST_L1_HITS: usize = 20;
/// Findings that are printed of each phase.
const PRINTED: usize = 12;

/// Runs all phases of a plan.
///
/// # Panics
/// When anything did not hold.
pub async fn run(plan: Plan) {
    println!("{plan}");
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut stage = Stage::set(&[]).await;
    let registers = make_registers(&stage).await;
    let (mut known, mut table, mut wrong) = (Vec::new(), Table::new(), 0);
    for round in 0.. {
        let Some(faults) = plan.round(round, &mut rng) else { break };
        for fault in faults {
            let phase;
            (phase, known) = run_phase(&mut stage, fault, plan.hold, rng.random(), &registers, known).await;
            table.add(fault, &phase.row);
            for finding in phase.findings.iter().take(PRINTED) {
                println!("    {finding}");
            }
            if !phase.findings.is_empty() {
                println!("    {} in all, seed {}", phase.findings.len(), plan.seed);
                println!("{}", stage.logs());
            }
            wrong += phase.findings.len();
        }
    }
    table.sum_up();
    assert_eq!(wrong, 0, "what did not hold is above");
    if let Some(calm) = table.calm_l1_hits() {
        assert!(calm >= LEAST_L1_HITS, "while nothing was wrong, memory answered {calm} % of the reads");
    }
}

/// How many reads are older than promised while nothing is wrong but settings of one instance.
pub async fn stale_reads_with(odd: &[(&str, &str)]) -> usize {
    let mut stage = Stage::set(odd).await;
    let registers = make_registers(&stage).await;
    // Or the journal would make up for it.
    let forget = "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
        CREATE TRIGGER forget BEFORE INSERT ON cache_journal FOR EACH ROW EXECUTE FUNCTION forget()";
    stage.postgres.psql(forget, "").unwrap();
    let (phase, _) = run_phase(&mut stage, Fault::Nothing, 2 * BOUND, 1, &registers, Vec::new()).await;
    phase.row.stale
}

struct Phase {
    row: Row,
    findings: Vec<String>,
}

/// Workspaces and documents with the number 0, made through the API.
async fn make_registers(stage: &Stage) -> Vec<Arc<Register>> {
    let mut registers = Vec::new();
    for _ in DOCUMENTS..WRITERS {
        let id = stage.ada.create_workspace("0").await;
        registers.push(Arc::new(Register::new(id.clone(), Kind::Workspace, id)));
    }
    for _ in 0..DOCUMENTS / 2 {
        let workspace = stage.ada.create_workspace("0").await;
        for _ in 0..2 {
            let made =
                stage.ada.post(&format!("/v1/workspaces/{workspace}/documents"), json!({"title": "0"})).await;
            let id = made.expect(201).field("/id");
            registers.push(Arc::new(Register::new(id, Kind::Document, workspace.clone())));
        }
    }
    registers
}

/// One fault. Takes the newest version of each register, and gives it back.
async fn run_phase(
    stage: &mut Stage,
    fault: Fault,
    hold: Duration,
    seed: u64,
    registers: &[Arc<Register>],
    known: Vec<Write>,
) -> (Phase, Vec<Write>) {
    stage.sign_in().await;
    let mut subjects = registers.to_vec();
    if fault == Fault::RowsChanged {
        for _ in 0..COPIED {
            let (id, workspace) =
                (uuid::Uuid::new_v4().to_string(), registers[registers.len() - 1].workspace.clone());
            subjects.push(Arc::new(Register::new(id, Kind::Copied, workspace)));
        }
    }
    let origin = Instant::now();
    let load = Load::start(stage, subjects, seed);
    let prepared = fault.prepare(stage).await;
    sleep(CALM).await;
    let calm_ended = Instant::now();
    let (history, excuses) = (History { writes: known, ..History::default() }, Excuses::default());
    let (world, rng) = (Arc::clone(&load.world), StdRng::seed_from_u64(seed));
    let mut scene = Scene { stage, world: &world, hold, rng, excuses, history };
    scene.play(fault, prepared).await;
    let Scene { excuses, mut history, .. } = scene;
    sleep(AFTERMATH).await;
    history.merge(load.stop().await);
    look_everywhere(stage, &world, &mut history).await;
    for client in &world.singly {
        eventually("what was hurt believes its memory again", Duration::from_secs(10), async || {
            client.get(&registers[0].path()).await.is_l1_hit().then_some(())
        })
        .await;
    }

    let judgement = judge(&history, &excuses, origin);
    let findings: Vec<_> = judgement.findings().cloned().collect();
    let row = Row {
        reads: history.answers.len(),
        writes: history.writes.iter().filter(|write| write.by.is_some() && write.started >= origin).count(),
        stale: judgement.stale.len(),
        longest: judgement.longest,
        longest_unacknowledged: judgement.longest_unacknowledged,
        excused: judgement.excused,
        l1_hits: share(history.answers.iter().copied()),
        calm_l1_hits: share(history.answers.iter().copied().filter(|answer| answer.started < calm_ended)),
    };
    let mut known = history.newest();
    known.retain(|write| write.register < registers.len());
    (Phase { row, findings }, known)
}

/// How many of these came from memory, in percent.
fn share(answers: impl Iterator<Item = Answer>) -> usize {
    let (mut all, mut hits) = (0, 0);
    for answer in answers {
        all += 1;
        hits += usize::from(answer.l1_hit);
    }
    100 * hits / all.max(1)
}

/// Reads every register at every instance as soon as each has to show what is in PostgreSQL, and that itself.
async fn look_everywhere(stage: &Stage, world: &World, history: &mut History) {
    let mut outside = Outside::new(&stage.postgres.url);
    history.finals = outside.finals(world).await;
    let last = history.writes.iter().map(|write| write.known).max();
    tokio::time::sleep_until((last.unwrap_or_else(Instant::now) + BOUND).into()).await;
    let everywhere = (0..INSTANCES).flat_map(|place| (0..world.registers.len()).map(move |k| (place, k)));
    let looking = everywhere.map(async |(place, register)| {
        let mut seen = History::default();
        glance(world, &mut seen, register, Some(place), false).await;
        seen
    });
    join_all(looking).await.into_iter().for_each(|seen| history.merge(seen));
}
