//! Storage that fails when it is told to.

use std::sync::{Mutex, PoisonError};

use crate::cluster::{Between, Upset};

/// What the next call of one kind meets.
#[derive(Debug, Default)]
pub(super) struct StorageFaults(Mutex<Option<(&'static str, Upset)>>);

impl StorageFaults {
    /// The next such call goes wrong so.
    pub(super) fn come(&self, call: &'static str, upset: Upset) {
        *self.next() = Some((call, upset));
    }

    /// None goes wrong any more.
    pub(super) fn end(&self) {
        *self.next() = None;
    }

    fn next(&self) -> std::sync::MutexGuard<'_, Option<(&'static str, Upset)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Between for StorageFaults {
    fn storage(&self, call: &'static str) -> Option<Upset> {
        let due = self.next().take_if(|(next, _)| *next == call);
        due.map(|(_, upset)| upset)
    }
}
