//! The volumes of one batch of removals among each other: what is built on what.
//!
//! ```text
//!   base ◀─ first ◀─ second       all of the batch: second, first, base
//!    ▲
//!    └── clone                    not of it: base stays, the other two go
//! ```
//!
//! Whatever needs a volume is in its way, unless it goes with it. So children are decided about before
//! what they are built on, and one that turns out to stay holds that.

use super::gate::Needer;
use super::name::removed;
use super::report::Group;
use crate::RemovalOrder;
use crate::condemned::{Condemned, now};

/// A batch's volumes, by their index in it.
#[derive(Debug)]
pub(super) struct Family {
    /// Children before what they are built on.
    order: Vec<usize>,
    /// Those of the batch that are built on each.
    children: Vec<Vec<usize>>,
    /// What else needs each.
    others: Vec<Option<Needer>>,
}

impl Family {
    /// Of who needs which of the orders' volumes.
    pub(super) fn of(orders: &[RemovalOrder], group: &Group, needed: Vec<(usize, Needer)>) -> Self {
        let mut family = Self {
            order: Vec::with_capacity(orders.len()),
            children: vec![Vec::new(); orders.len()],
            others: vec![None; orders.len()],
        };
        for (index, needer) in needed {
            match child(orders, group, &needer, index) {
                Some(child) => family.children[index].push(child),
                None if needer.refuses(&orders[index]) => family.others[index] = Some(needer),
                None => {}
            }
        }
        family.sort(orders, group);
        family
    }

    /// Children first. Those of a chain that has no end hold each other.
    fn sort(&mut self, orders: &[RemovalOrder], group: &Group) {
        let mut left: Vec<usize> = (0..orders.len()).collect();
        loop {
            let waits = |index: &usize| {
                self.children[*index]
                    .iter()
                    .any(|child| left.contains(child))
            };
            let (wait, next): (Vec<_>, Vec<_>) = left.iter().partition(|index| waits(index));
            if next.is_empty() {
                break;
            }
            self.order.extend(next);
            left = wait;
        }
        for index in left {
            self.order.push(index);
            let child = self.children[index]
                .iter()
                .find(|child| !self.order.contains(child));
            if let Some(child) = child.or_else(|| self.children[index].first()) {
                self.others[index] = Some(Needer::of(&orders[*child], group));
            }
        }
    }

    /// All indexes, children before what they are built on.
    pub(super) fn order(&self) -> Vec<usize> {
        self.order.clone()
    }

    /// Those of the batch that are built on it, and for no longer than it is.
    pub(super) fn children(&self, index: usize) -> &[usize] {
        &self.children[index]
    }

    /// What else is in its way.
    pub(super) fn other(&self, index: usize) -> Option<&Needer> {
        self.others[index].as_ref()
    }
}

/// Which order of the batch takes a needer away, so that it is not in the way of this one.
fn child(orders: &[RemovalOrder], group: &Group, needer: &Needer, of: usize) -> Option<usize> {
    let volume = group.named(&needer.name)?;
    let takes = |order: &RemovalOrder| {
        let named = !order.resumes && order.volume.as_str() == needer.name;
        let condemned = removed(order.id) == needer.name;
        (named && order.identity == volume.identity) || condemned
    };
    let child = orders.iter().position(takes).filter(|child| *child != of)?;
    let now = now();
    let outlasts = match &needer.kept {
        Some(_) => needer.refuses(&orders[of]),
        None => Condemned::new(&orders[child], now).outlasts(&orders[of], now),
    };
    (!outlasts).then_some(child)
}
