//! What was measured, a row for each fault.

use std::{collections::BTreeMap, time::Duration};

use super::fault::Fault;

/// One phase, or all phases of a fault.
#[derive(Debug, Default, Clone)]
pub struct Row {
    pub reads: usize,
    pub writes: usize,
    /// Reads that were older than promised.
    pub stale: usize,
    /// The longest that a read was behind what was acknowledged, and behind what was committed.
    pub longest: Duration,
    pub longest_unacknowledged: Duration,
    /// Failures that the fault explains.
    pub excused: usize,
    /// Reads that memory answered, in percent: of all, and while nothing was wrong.
    pub l1_hits: usize,
    pub calm_l1_hits: usize,
}

/// The rows so far.
pub struct Table {
    phases: BTreeMap<Fault, Vec<Row>>,
}

impl Table {
    /// Prints its heading.
    pub fn new() -> Self {
        println!(
            "| fault | reads | writes | too old | behind what was acknowledged | behind others | errors \
             | L1 hits, calm | L1 hits |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        Self { phases: BTreeMap::new() }
    }

    /// Prints a phase.
    pub fn add(&mut self, fault: Fault, row: &Row) {
        print(fault.name(), row);
        self.phases.entry(fault).or_default().push(row.clone());
    }

    /// Reads that memory answered while nothing was wrong, in percent. `None`: too little was seen, since at first memory
    /// is empty.
    pub fn calm_l1_hits(&self) -> Option<usize> {
        let phases: Vec<_> = self.phases.values().flatten().collect();
        let share = phases.iter().map(|row| row.calm_l1_hits).sum::<usize>() / phases.len().max(1);
        (phases.len() >= 5).then_some(share)
    }

    /// Prints all phases of each fault as one, if there were several.
    pub fn sum_up(&self) {
        if self.phases.values().all(|phases| phases.len() == 1) {
            return;
        }
        println!("\nin all:\n");
        for (fault, phases) in &self.phases {
            let sum = |part: fn(&Row) -> usize| phases.iter().map(part).sum::<usize>();
            let longest = |part: fn(&Row) -> Duration| phases.iter().map(part).max().unwrap_or_default();
            let row = Row {
                reads: sum(|row| row.reads),
                writes: sum(|row| row.writes),
                stale: sum(|row| row.stale),
                longest: longest(|row| row.longest),
                longest_unacknowledged: longest(|row| row.longest_unacknowledged),
                excused: sum(|row| row.excused),
                l1_hits: sum(|row| row.l1_hits) / phases.len(),
                calm_l1_hits: sum(|row| row.calm_l1_hits) / phases.len(),
            };
            print(&format!("{} ({}: {})", fault.says(), fault.name(), phases.len()), &row);
        }
    }
}

fn print(name: &str, row: &Row) {
    let Row { reads, writes, stale, longest, longest_unacknowledged, excused, l1_hits, calm_l1_hits } = row;
    let (longest, others) = (longest.as_secs_f64(), longest_unacknowledged.as_secs_f64());
    println!(
        "| {name} | {reads} | {writes} | {stale} | {longest:.2} s | {others:.2} s | {excused} \
         | {calm_l1_hits} % | {l1_hits} % |"
    );
}
