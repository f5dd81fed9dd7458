//! Which cases there are: every fault at every passing of every site, and second faults during the
//! recovery from the first.

use super::case::Case;
use super::fault::{Fault, Site, faults_at, most_hits, owner};
use super::scenario::Scenario;
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
/// How many passings of a site in a recovery get a second fault.
const SECOND_HITS: usize = 2;

/// One fault each, for what a run without faults has passed.
pub fn singles(scenario: &'static Scenario, passed: &Hits) -> Vec<Case> {
    let mut cases = Vec::new();
    for (site, hits) in passed {
        for hit in 1..=(*hits).min(most_hits(site)) {
            for fault in faults_at(site) {
                let fault = if scenario.off { fault.of_off() } else { fault };
                let plans = vec![Plan { site, hit, fault }];
                cases.push(Case { scenario, plans });
            }
        }
    }
    cases
}

/// Whether second faults follow this case.
pub fn has_seconds(case: &Case) -> bool {
    let [first] = case.plans.as_slice() else {
        return false;
    };
    let owner = owner(first.site).unwrap_or(Who::Agent);
    let dies = first.fault == Fault::Crash(owner);
    case.scenario.pairs && FIRSTS.contains(&first.site) && (dies || first.fault == Fault::KillVm)
}

/// A crash of either service at every point that the recovery from the first fault has passed.
pub fn seconds(case: &Case, passed: &Hits) -> Vec<Case> {
    let mut cases = Vec::new();
    for (site, hits) in passed {
        if owner(site).is_none() || site.ends_with("-journal") {
            continue;
        }
        for hit in 1..=(*hits).min(SECOND_HITS) {
            for who in [Who::Server, Who::Agent] {
                let fault = Fault::Crash(who);
                let mut plans = case.plans.clone();
                plans.push(Plan { site, hit, fault });
                cases.push(Case {
                    scenario: case.scenario,
                    plans,
                });
            }
        }
    }
    cases
}
