//! Which cases there are: every fault at every passing of every site, and second faults during the
//! recovery from the first.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::Passed;
use super::case::Case;
use super::fault::{Fault, OF_RECOVERY, Site, certain_hits, faults_at, most_hits, owner, sites};
use super::scenario::{Beside, Scenario, scenario};
use super::stage::{Hits, Plan};
use crate::cluster::Who;

/// The sites around pivot, record and removal: after a first fault here a second one follows.
const FIRSTS: [Site; 11] = [
    "qemu::switches",
    "qemu::notices",
    "agent::after-persist",
    "agent::before-act",
    "agent::after-act",
    "agent::before-removal",
    "agent::after-removal",
    "api::before-enter",
    "api::after-enter",
    "api::before-ask",
    "api::after-ask",
];

/// What a row passes that is refused.
const REQUESTS: [Site; 3] = [
    "rpc::DeleteSnapshot",
    "rpc::BatchDeleteSnapshots",
    "rpc::CreateSnapshot",
];

/// Cases that are not played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Which, and why.
    pub what: String,
    /// How many.
    pub cases: usize,
}

/// One fault each, for what a run without faults has passed, and what is left out of them.
pub fn singles(scenario: &'static Scenario, passed: &Hits) -> (Vec<Case>, Vec<LeftOut>) {
    let (mut cases, mut left_out) = (Vec::new(), Vec::new());
    for (site, hits) in passed {
        let (most, mut faults) = (most_hits(site), faults_at(site));
        let all = faults.len();
        faults.retain(|fault| is_promised(scenario, site, *fault));
        if faults.len() < all {
            let what = format!(
                "{} / deaths of QEMU at {site}: the configuration accepts their window",
                scenario.name
            );
            let cases = (all - faults.len()) * hits.min(&most);
            left_out.push(LeftOut { what, cases });
        }
        for hit in 1..=(*hits).min(most) {
            let single = |fault: &Fault| single(scenario, site, hit, *fault);
            cases.extend(faults.iter().map(single));
        }
        let beyond = hits.saturating_sub(most) * faults.len();
        if beyond > 0 {
            let what = format!(
                "{} / {site} after #{most}: such steps repeat as long as time passes",
                scenario.name
            );
            left_out.push(LeftOut {
                what,
                cases: beyond,
            });
        }
    }
    (cases, left_out)
}

/// A guest that runs while it is switched may lose writes when QEMU dies then: nothing is promised of
/// that. As long as the job copies it is not.
fn is_promised(scenario: &Scenario, site: Site, fault: Fault) -> bool {
    let dies = matches!(fault, Fault::KillVm | Fault::HostDies);
    scenario.beside != Beside::Running || !dies || site == "qemu::copies"
}

fn single(scenario: &'static Scenario, site: Site, hit: usize, fault: Fault) -> Case {
    let fault = if scenario.off { fault.of_off() } else { fault };
    let plans = vec![Plan { site, hit, fault }];
    Case { scenario, plans }
}

/// A fixed part of all cases: every fault at every site, on `times` of the rows that pass it, each at a passing
/// of its own. Each row is drawn by itself: one that passes a site only now and then, as time passes, changes
/// no other row's cases. Sites that are only passed when time has passed are left to the whole sweep.
pub fn representative(passed: &[Passed], times: usize) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for site in sites() {
        for fault in faults_at(site) {
            let rows = passed
                .iter()
                .filter(|(row, _)| is_promised(row, site, fault))
                .filter_map(|(row, hits)| Some((lot(row, site, fault), *row, *hits.get(site)?)));
            let mut rows: Vec<_> = rows.collect();
            rows.sort_by_key(|(lot, ..)| *lot);
            for (lot, scenario, hits) in rows.into_iter().take(times) {
                let hit = 1 + lot % hits.min(certain_hits(site));
                let case = single(scenario, site, hit, fault);
                if !cases.contains(&case) {
                    cases.push(case);
                }
            }
        }
    }
    // Whose lot was never drawn is played once all the same.
    for (scenario, hits) in passed {
        if cases.iter().all(|case| case.scenario != *scenario) {
            let asked = REQUESTS.into_iter().find(|site| hits.contains_key(site));
            let fault = asked.and_then(|site| Some((site, *faults_at(site).first()?)));
            cases.extend(fault.map(|(site, fault)| single(scenario, site, 1, fault)));
        }
    }
    cases
}

/// What decides whether a row's case is played, and at which passing.
fn lot(row: &Scenario, site: Site, fault: Fault) -> usize {
    let mut hasher = DefaultHasher::new();
    (row.name, site, fault).hash(&mut hasher);
    hasher.finish() as usize
}

/// Whether second faults follow this case.
pub fn has_seconds(case: &Case) -> bool {
    let [first] = case.plans.as_slice() else {
        return false;
    };
    let owner = owner(first.site).unwrap_or(Who::Agent);
    let dies = first.fault == Fault::Crash(owner);
    let around = FIRSTS.contains(&first.site) && (dies || first.fault == Fault::KillVm);
    let mends = matches!(first.fault, Fault::HalfWritten | Fault::DiesAtTheEnd);
    mends || case.scenario.second_hits > 0 && around
}

/// A crash of either service at the points that the recovery from the first fault has passed, and what
/// may go wrong with the calls that it alone makes.
pub fn seconds(case: &Case, passed: &Hits) -> (Vec<Case>, Vec<LeftOut>) {
    let (mut cases, mut beyond) = (Vec::new(), 0);
    let most = case.scenario.second_hits;
    for (site, hits) in passed {
        if OF_RECOVERY.contains(site) {
            let faults = faults_at(site);
            beyond += (hits - 1) * faults.len();
            cases.extend(faults.into_iter().map(|fault| then(case, site, 1, fault)));
        }
        if most == 0 || owner(site).is_none() || site.ends_with("-journal") {
            continue;
        }
        beyond += hits.saturating_sub(most) * 2;
        for hit in 1..=(*hits).min(most) {
            for who in [Who::Server, Who::Agent] {
                cases.push(then(case, site, hit, Fault::Crash(who)));
            }
        }
    }
    let what = format!(
        "{} / second faults after passing #{most} of a point: the recovery repeats itself",
        case.scenario.name
    );
    let left_out = (beyond > 0).then_some(LeftOut {
        what,
        cases: beyond,
    });
    (cases, left_out.into_iter().collect())
}

/// The same with one more fault after the others.
fn then(case: &Case, site: Site, hit: usize, fault: Fault) -> Case {
    let mut case = case.clone();
    case.plans.push(Plan { site, hit, fault });
    case
}

/// What may go wrong with the calls that mend what a first fault has left, once each.
pub fn mends() -> Vec<Case> {
    let firsts = [
        (
            "active",
            "qemu::switches",
            Fault::HalfWritten,
            "hypervisor::set_next_start",
        ),
        (
            "middle",
            "qemu::commits",
            Fault::DiesAtTheEnd,
            "hypervisor::restore_backing",
        ),
    ];
    let cases = firsts.into_iter().flat_map(|(row, first, fault, site)| {
        let first = scenario(row).map(|row| single(row, first, 1, fault));
        let faults = faults_at(site).into_iter();
        faults.filter_map(move |fault| Some(then(first.as_ref()?, site, 1, fault)))
    });
    cases.collect()
}
