//! What is refused or ended for a limit, counted.

use super::shares::Refused;
use crate::metrics::{Counter, Definition, Metrics};

const SHED: Definition = Definition::counter(
    "livemerge_server_shed",
    &["limit"],
    "What was refused or ended for a limit: calls, watches; client_calls, client_watches and \
     client_connections for the share of one client; slow_reader for answers that were not taken",
);

const SLOW_READER: &str = "slow_reader";

/// What there is only so much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Calls that are served at once.
    Calls,
    /// Watches and waits that are open.
    Watches,
    /// Connections. When all are open nobody is refused: the others wait.
    Connections,
}

impl Limit {
    const fn label(self, refused: Refused) -> &'static str {
        match (self, refused) {
            (Limit::Calls, Refused::Full) => "calls",
            (Limit::Calls, Refused::Share) => "client_calls",
            (Limit::Watches, Refused::Full) => "watches",
            (Limit::Watches, Refused::Share) => "client_watches",
            (Limit::Connections, _) => "client_connections",
        }
    }
}

/// Counts what is shed. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Shed(Counter);

impl Shed {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let shed = Shed(metrics.counter(SHED));
        for limit in [Limit::Calls, Limit::Watches, Limit::Connections] {
            for refused in [Refused::Full, Refused::Share] {
                shed.0.add(&[limit.label(refused)], 0);
            }
        }
        shed.0.add(&[SLOW_READER], 0);
        shed
    }

    pub(super) fn count(&self, limit: Limit, refused: Refused) {
        self.0.inc(&[limit.label(refused)]);
    }

    pub(super) fn count_slow_reader(&self) {
        self.0.inc(&[SLOW_READER]);
    }
}
